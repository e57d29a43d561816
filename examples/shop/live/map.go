package live

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sillar-go/sillar/examples/shop/internal/platform"
)

// Geometry of the map, in the units of its view box.
const (
	mapLeft, mapStep     = 16, 124
	cardWidth, cardTop   = 108, 112
	cardBottom, storeTop = 170, 188
	barBottom, brokerTop = 44, 240
)

// inRow are the services as they stand in the map: those that call each other are near.
var inRow = []string{"users", "products", "orders", "inventory", "payments", "notifications"}

// node is a service in the map.
type node struct {
	Name  string
	X     int // its left side
	Store string
}

// line is an edge in the map.
type line struct {
	edge
	Path string
	Says string
}

// layout places the services that there are.
func layout(services []*platform.Service) (out []node) {
	for i, name := range inRow {
		for _, s := range services {
			if s.Name == name {
				kind, _, _ := strings.Cut(s.DB, ":")
				out = append(out, node{name, mapLeft + i*mapStep, map[string]string{"sqlite": "SQLite"}[kind]})
			}
		}
	}
	return out
}

// calls are the ways between services: from, to, where it leaves and arrives beside the cards' left sides, and how
// high it goes.
var calls = []struct {
	from, to            string
	leaves, arrives, at int
}{
	{"orders", "users", 46, 74, 40},
	{"orders", "products", 58, 64, 66},
	{"orders", "inventory", 76, 56, 66},
	{"orders", "payments", 88, 60, 40},
	{"products", "inventory", 84, 40, 52},
}

// talks says who publishes, and who listens.
var talks = map[string]string{"users": "out", "products": "out", "orders": "out", "inventory": "in",
	"notifications": "in"}

// lines are all edges of the map.
func lines(nodes []node) (out []line) {
	at := map[string]int{}
	for _, n := range nodes {
		at[n.Name] = n.X
		out = append(out,
			line{edge{"gateway", n.Name}, fmt.Sprintf("M%d %d V%d", n.X+22, barBottom, cardTop), "the gateway calls " + n.Name},
			line{edge{n.Name, n.Name + "-store"}, fmt.Sprintf("M%d %d V%d", n.X+29, cardBottom, storeTop),
				n.Name + " writes to its store"})
		switch talks[n.Name] {
		case "out":
			out = append(out, line{edge{n.Name, "broker"}, fmt.Sprintf("M%d %d V%d", n.X+84, cardBottom, brokerTop),
				n.Name + " publishes"})
		case "in":
			out = append(out, line{edge{"broker", n.Name}, fmt.Sprintf("M%d %d V%d", n.X+84, brokerTop, cardBottom),
				n.Name + " consumes from the broker"})
		}
	}
	for _, c := range calls {
		a, b := at[c.from]+c.leaves, at[c.to]+c.arrives
		out = append(out, line{edge{c.from, c.to}, fmt.Sprintf("M%d %d C%d %d %d %d %d %d", a, cardTop, a, c.at, b, c.at, b,
			cardTop), c.from + " calls " + c.to})
	}
	return out
}

// card is what the map and the table say of a service at a moment.
type card struct {
	node
	Health, StoreHealth string
	Rate, Errors, P95   string
	Badge               string // of a breaker towards it that is not closed, or of its health
	Failing             bool
	RateLine, ErrorLine string // paths of the sparklines
	P95Line             string
	CenterX             int
}

// cards are those of all services of the map, and of the gateway, which comes first.
func (f *figures) cards(nodes []node) []card {
	open := f.open()
	out := make([]card, 0, len(nodes)+1)
	for _, n := range append([]node{{Name: "gateway"}}, nodes...) {
		s := f.series[n.Name]
		c := card{node: n, Health: f.health[n.Name], StoreHealth: f.checks[n.Name]["database"], CenterX: n.X + cardWidth/2}
		c.Rate, c.RateLine = number(recentMean(s.rate), "/s"), spark(s.rate)
		c.Errors, c.ErrorLine = number(recentMean(s.errors), "/s"), spark(s.errors)
		c.P95, c.P95Line = duration(lastKnown(s.p95)), spark(s.p95)
		c.Failing = recentMean(s.errors) > 0
		for e, state := range open {
			if e.To == n.Name && !strings.HasPrefix(c.Badge, "breaker open") {
				c.Badge = "breaker " + state
				if state == "open" {
					c.Badge += fmt.Sprintf(" %d s", int(f.at.Sub(f.opened[e]).Seconds()))
				}
			}
		}
		if c.Badge == "" && c.Health != "up" {
			c.Badge = faultOf(c.Health, f.checks[n.Name])
		}
		out = append(out, c)
	}
	return out
}

// faultOf says why a service is not ready: which of the parts that it needs.
func faultOf(health string, checks map[string]string) string {
	var bad []string
	for name, status := range checks {
		if status != "up" {
			bad = append(bad, name)
		}
	}
	slices.Sort(bad)
	switch len(bad) {
	case 0:
		return health
	case 1:
		return "no " + bad[0]
	}
	return fmt.Sprintf("no %s +%d", bad[0], len(bad)-1)
}

// recentMean is the mean of the newest points: one alone is a matter of chance.
func recentMean(points []float64) float64 {
	newest := points[max(0, len(points)-5):]
	sum := 0.0
	for _, v := range newest {
		sum += v
	}
	return sum / float64(max(len(newest), 1))
}

// lastKnown is the newest point that is a number, if it is not long ago.
func lastKnown(points []float64) float64 {
	for i := len(points) - 1; i >= max(0, len(points)-10); i-- {
		if !math.IsNaN(points[i]) {
			return points[i]
		}
	}
	return math.NaN()
}

func number(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0" + unit
	case v < 10:
		return fmt.Sprintf("%.1f%s", v, unit)
	}
	return fmt.Sprintf("%.0f%s", v, unit)
}

func duration(ms float64) string {
	if ms >= 1000 {
		return number(ms/1000, " s")
	}
	return number(ms, " ms")
}

// Size of a sparkline.
const sparkWidth, sparkHeight = 90, 20

// spark is the path of a sparkline. What is no number is a gap.
func spark(points []float64) string {
	top := 0.0
	for _, v := range points {
		if !math.IsNaN(v) {
			top = max(top, v)
		}
	}
	var b strings.Builder
	down := false
	for i, v := range points {
		if math.IsNaN(v) {
			down = false
			continue
		}
		y := float64(sparkHeight) - 1
		if top > 0 {
			y -= v / top * (sparkHeight - 3)
		}
		verb := "M"
		if down {
			verb = "L"
		}
		x := float64(sparkWidth) * float64(i+keptPoints-len(points)) / (keptPoints - 1)
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, x, y)
		if !down {
			fmt.Fprintf(&b, "h.1") // a single point is seen
		}
		down = true
	}
	return b.String()
}
