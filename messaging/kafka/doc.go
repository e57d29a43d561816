// Package kafka is a messaging.Broker over Apache Kafka.
package kafka
