// Package driver is what the adapters of package messaging, brokers and outboxes, are made of: events made ready to be
// published, with the spans of publishing, checked subscriptions and topic patterns. Users of brokers do not need it.
//
// Package messagingtest checks an adapter.
package driver
