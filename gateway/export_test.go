package gateway

import "github.com/sillar-go/sillar/breaker"

// OnlyInstance returns what the breaker of the only instance has counted, and the requests in progress there.
func (g *Gateway) OnlyInstance() (counts breaker.Counts, inFlight int64) {
	i := g.table.Load().routes[0].rotation.Load().all[0]
	return i.breaker.Counts(), i.busy.Load()
}
