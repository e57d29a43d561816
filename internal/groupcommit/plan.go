package groupcommit

import (
	"math/bits"
	"strconv"
	"sync/atomic"
)

// Plan has PostgreSQL plan a statement anew each time that it has run twice as often. What is kept prepared keeps its
// plan until the table is analysed: one that was made while the table was small, and reads all of it, as well. A table
// that grows with the runs is now at most twice as large as the plan knows, and planning costs nothing to speak of.
type Plan struct{ runs atomic.Uint64 }

// SQL counts a run, and returns the text under which the statement is kept for now.
func (p *Plan) SQL(query string) string {
	return query + " -- " + strconv.Itoa(bits.Len64(p.runs.Add(1)))
}
