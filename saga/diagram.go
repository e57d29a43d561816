package saga

import (
	"fmt"
	"strings"
)

// Mermaid draws the definition as a Mermaid flowchart, with the compensations dotted; with a record of an instance the
// steps are coloured by their status.
func (d *Def[S]) Mermaid(overlay ...Record) string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	d.d.draw(func(id, label, shape string) {
		open, closing := "[", "]"
		switch shape {
		case "pivot":
			open, closing = "{{", "}}"
		case "await":
			open, closing = "([", "])"
		case "undo":
			open, closing = ">", "]"
		}
		fmt.Fprintf(&b, "    %s%s\"%s\"%s\n", id, open, label, closing)
	}, func(from, to string, undo bool) {
		arrow := "-->"
		if undo {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "    %s %s %s\n", from, arrow, to)
	})
	status := statuses(overlay)
	if len(status) > 0 {
		b.WriteString(
			"    classDef completed fill:#cfc\n    classDef started fill:#ffc\n    classDef failed fill:#fcc\n    classDef " +
				"compensated fill:#ccf\n",
		)
		d.d.each(func(id string, n *node) {
			if s, ok := status[n.name]; ok && s != StepNotStarted {
				fmt.Fprintf(&b, "    class %s %s\n", id, strings.ToLower(string(s)))
			}
		})
	}
	return b.String()
}

// DOT draws the definition for Graphviz, coloured by an instance where one is given.
func (d *Def[S]) DOT(overlay ...Record) string {
	status, colors := statuses(
		overlay,
	), map[StepStatus]string{
		StepCompleted:   "#ccffcc",
		StepStarted:     "#ffffcc",
		StepFailed:      "#ffcccc",
		StepCompensated: "#ccccff",
	}
	fill := map[string]string{}
	d.d.each(func(id string, n *node) {
		if c, ok := colors[status[n.name]]; ok {
			fill[id] = fmt.Sprintf(" style=filled fillcolor=%q", c)
		}
	})
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n  rankdir=LR\n", d.d.name)
	d.d.draw(func(id, label, shape string) {
		box := map[string]string{"pivot": "hexagon", "await": "oval", "undo": "note"}[shape]
		if box == "" {
			box = "box"
		}
		fmt.Fprintf(&b, "  %s [label=%q shape=%s%s]\n", id, label, box, fill[id])
	}, func(from, to string, undo bool) {
		style := ""
		if undo {
			style = " [style=dotted]"
		}
		fmt.Fprintf(&b, "  %s -> %s%s\n", from, to, style)
	})
	b.WriteString("}\n")
	return b.String()
}

func statuses(overlay []Record) map[string]StepStatus {
	out := map[string]StepStatus{}
	for _, r := range overlay {
		for _, st := range r.Steps {
			out[st.Name] = st.Status
			for _, b := range st.Branches {
				out[b.Name] = b.Status
			}
		}
	}
	return out
}

// each visits the steps that have handlers, with ids that both languages accept.
func (d *definition) each(visit func(id string, n *node)) {
	for i, n := range d.nodes {
		if n.kind != kindParallel {
			visit(fmt.Sprintf("s%d", i), n)
		}
		for j, b := range n.branches {
			visit(fmt.Sprintf("s%d_%d", i, j), b)
		}
	}
}

func (d *definition) draw(box func(id, label, shape string), arrow func(from, to string, undo bool)) {
	d.each(func(id string, n *node) {
		box(id, n.name, string(n.kind))
		if n.undo != nil {
			box(id+"u", "undo "+n.name, "undo")
			arrow(id, id+"u", true)
		}
	})
	ids := func(i int) (out []string) {
		if n := d.nodes[i]; n.kind != kindParallel {
			return []string{fmt.Sprintf("s%d", i)}
		}
		for j := range d.nodes[i].branches {
			out = append(out, fmt.Sprintf("s%d_%d", i, j))
		}
		return out
	}
	for i := 1; i < len(d.nodes); i++ {
		for _, from := range ids(i - 1) {
			for _, to := range ids(i) {
				arrow(from, to, false)
			}
		}
	}
}
