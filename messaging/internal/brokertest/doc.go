// Package brokertest has tests that clients of servers share beside messagingtest: they need a database, killed
// processes or the SDK of OpenTelemetry.
package brokertest
