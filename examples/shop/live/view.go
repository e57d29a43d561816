package live

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html live.css live.js icon.svg
var assets embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"add": func(a, b int) int {
	return a + b
}}).ParseFS(assets, "page.html"))

// execute runs an embedded template, which does not fail: tests run all of them.
func execute(name string, data any) string {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		panic(err)
	}
	return strings.TrimSpace(b.String())
}

// fragment is the content of an element of the page, and the state of the whole in which it changed last.
type fragment struct {
	html string
	seq  uint64
}

// keptNotes is how many notes are shown.
const keptNotes = 3

type note struct{ Time, Text string }

// view is what is seen at a moment. Its fields are guarded by the page's vmu.
type view struct {
	seq      uint64
	html     map[string]fragment
	pulse    map[string]string
	pulseSeq uint64
	broken   map[string]string
	state    map[string]string
	notes    []note // the newest first
	audit    audit
	facts    facts
	at       time.Time // when the meters were read
}

func newView(faults bool) view {
	v := view{html: map[string]fragment{}, broken: map[string]string{}, state: map[string]string{"broker": brokerUp,
		"load": "off"}}
	if faults {
		v.state["payments"] = "ok"
	}
	v.render()
	return v
}

// put sets the content of an element.
func (v *view) put(id, html string) {
	if v.html[id].html != html {
		v.html[id] = fragment{html, v.seq}
	}
}

func (v *view) say(text string) {
	v.notes = append([]note{{time.Now().Format("15:04:05"), text}}, v.notes[:min(len(v.notes), keptNotes-1)]...)
}

// render makes the parts that do not come from the meters.
func (v *view) render() {
	v.seq++
	v.put("strip", execute("strip", v.audit.tiles()))
	v.put("notes", execute("notes", v.notes))
	v.put("n-broker", execute("broker", map[string]any{"Mode": v.state["broker"], "Pending": plural(int64(v.facts.pending),
		"event")}))
	v.put("faults", execute("faults", v.faults()))
}

// faults says what is broken on purpose, and what follows from it.
func (v *view) faults() (out []string) {
	for _, f := range []struct{ part, mode, says string }{
		{"payments", "slow", "the payment processor takes three seconds longer"},
		{"payments", "down", "the payment processor does not answer: orders wait, or are cancelled"},
		{"broker", brokerTwice, "the broker delivers every event twice: inboxes ignore the second"},
		{"broker", brokerDown, "the broker is down: events wait in outboxes"},
	} {
		if v.state[f.part] == f.mode {
			out = append(out, f.says)
		}
	}
	return out
}

// measured takes new figures.
func (v *view) measured(f *figures, nodes []node) {
	v.seq++
	v.at, v.facts = f.at, f.facts()
	v.pulse, v.pulseSeq = map[string]string{}, v.seq
	for e, n := range f.moved {
		v.pulse[e.ID()] = "ok"
		if n.bad > 0 {
			v.pulse[e.ID()] = "bad"
		}
	}
	v.broken = map[string]string{}
	for e, state := range f.open() {
		v.broken[e.ID()] = state
	}
	cards := f.cards(nodes)
	for _, c := range cards {
		v.put("n-"+c.Name, execute("node", c))
	}
	v.put("red", execute("red", cards))
}

// frame returns what was not sent to a viewer yet, and whether there is anything.
func (p *Page) frame(at *seen) (f frame, news bool) {
	p.vmu.Lock()
	v := &p.view
	if v.seq > at.state {
		news = true
		f.HTML = map[string]string{}
		for id, part := range v.html {
			if part.seq > at.state {
				f.HTML[id] = part.html
			}
		}
		if v.pulseSeq > at.pulses && at.sent {
			f.Pulse = v.pulse
		}
	}
	f.Broken, f.State = map[string]string{}, map[string]string{}
	for id, s := range v.broken {
		f.Broken[id] = s
	}
	for name, s := range v.state {
		f.State[name] = s
	}
	at.state, at.pulses = v.seq, v.pulseSeq
	p.vmu.Unlock()

	rows, next := p.orders.since(at.rows)
	for _, r := range rows {
		f.Orders = append(f.Orders, orderHTML{r.Key(), execute("order", r)})
	}
	at.rows = next
	lines, number := p.journal.since(at.lines, at.correlation, linesAtOnce)
	for _, l := range lines {
		if e, ok := readEntry(l); ok {
			f.Log = append(f.Log, execute("line", e))
		}
	}
	at.lines = number
	f.Fresh = !at.sent
	news = news || f.Fresh || len(f.Orders) > 0 || len(f.Log) > 0
	at.sent = at.sent || news
	return f, news
}

// serve answers with the page, as it is at this moment.
func (p *Page) serve(w http.ResponseWriter, r *http.Request) {
	if !p.watched() {
		p.measure(r.Context())
		p.check(r.Context())
	}
	var data struct {
		Host   string
		HTML   map[string]template.HTML
		State  map[string]string
		Orders []template.HTML
		Lines  []line
		Nodes  []node
		Cards  any
	}
	f, _ := p.frame(&seen{})
	data.Host, data.State, data.Lines, data.Nodes, data.Cards = r.Host, f.State, lines(p.nodes), p.nodes, cards
	data.HTML = map[string]template.HTML{}
	for id, html := range f.HTML {
		data.HTML[id] = template.HTML(html) //nolint:gosec // it was made by a template
	}
	for i := len(f.Orders) - 1; i >= 0; i-- {
		data.Orders = append(data.Orders, template.HTML(f.Orders[i].HTML)) //nolint:gosec // it was made by a template
	}
	secure(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(execute("page", data)))
}

// asset serves a file that the page loads.
func asset(name string) http.Handler {
	kind := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
		"svg": "image/svg+xml"}[name[strings.LastIndexByte(name, '.')+1:]]
	text, err := assets.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text)
	})
}
