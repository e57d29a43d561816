// Package userpb is the gRPC interface of the users service, generated from user.proto.
package userpb

//go:generate buf generate
