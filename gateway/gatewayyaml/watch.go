package gatewayyaml

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/sillar-go/sillar/gateway"
)

// settle is how long a file that has changed must stay as it is.
const settle = 50 * time.Millisecond

// Watch reloads gw whenever the content of the file at path has changed, which it looks for at every interval, 0 for 5
// s, until ctx ends; the first look is at once, for the file may have changed since gw was made. It reads the whole
// file again, so writing it, moving another one to its place and changing a symbolic link on the way to it, as
// Kubernetes does with a ConfigMap, are all seen. A file that is not valid is logged, with the line, and what was there
// goes on serving; so it is with one that is missing.
func Watch(ctx context.Context, path string, interval time.Duration, gw *gateway.Gateway, logger *slog.Logger) error {
	if interval <= 0 {
		interval = 5 * time.Second
	}
	logger = cmp.Or(logger, slog.Default())
	w := watch{path: path, gw: gw, logger: logger}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type watch struct {
	path    string
	gw      *gateway.Gateway
	logger  *slog.Logger
	last    []byte // what was looked at
	began   bool
	missing int // looks in a row
}

func (w *watch) look(ctx context.Context) {
	text, err := os.ReadFile(w.path)
	if err != nil { // it may be in the middle of being replaced
		if w.missing++; w.missing == 2 {
			w.logger.ErrorContext(ctx, "gatewayyaml: the routes cannot be read, the old ones stay", "error", err)
		}
		return
	}
	w.missing = 0
	if bytes.Equal(text, w.last) && w.began {
		return
	}
	if w.began { // a part of a file is a valid file, too: it must have been written to its end
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		if again, err := os.ReadFile(w.path); err != nil || !bytes.Equal(again, text) {
			return
		}
	}
	first := !w.began
	w.last, w.began = text, true
	p, err := parse(text)
	if err == nil {
		if err = w.gw.Reload(p.routes); err != nil {
			err = p.locate(err)
		}
	}
	switch {
	case err != nil:
		w.logger.ErrorContext(ctx, "gatewayyaml: the routes are not valid, the old ones stay", "path", w.path, "error", err)
	case !first:
		w.logger.InfoContext(ctx, "gatewayyaml: routes reloaded", "path", w.path, "routes", len(p.routes))
	}
}
