// Command shop is the reference application: seven services, in one process or in seven.
//
//	go run ./examples/shop              everything in one process, on embedded defaults; open the address that it prints
//	                                    in a browser to watch the services, place orders and inject faults
//	go run ./examples/shop demo         runs a scenario in the terminal, and fails when an invariant is violated
//	go run ./examples/shop orders       one service, with its parts chosen by DSNs
//	go run ./examples/shop gateway --config routes.yaml   the gateway alone, with its routes from a watched file
//	go run ./examples/shop certs        certificates of a development authority, to try TLS
//	go run ./examples/shop help         all commands and flags
//
// Every flag can be given as an environment variable too: --port-offset as SHOP_PORT_OFFSET.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // from now on a second signal ends the process at once
	}()
	if err := root().ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}
