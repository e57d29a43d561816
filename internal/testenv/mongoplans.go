package testenv

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// MongoPlans collects the commands that running code sends to a MongoDB-protocol server.
type MongoPlans struct {
	mu   sync.Mutex
	seen map[string]bson.D // by shape, the first find that stands for it
}

// Monitor returns the option that a client needs whose commands are collected.
func (p *MongoPlans) Monitor() *options.ClientOptions {
	started := func(_ context.Context, e *event.CommandStartedEvent) {
		for _, find := range finds(e) {
			p.add(find)
		}
	}
	return options.Client().SetMonitor(&event.CommandMonitor{Started: started})
}

func (p *MongoPlans) add(find bson.D) {
	raw, err := bson.MarshalExtJSON(find, true, false)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]bson.D{}
	}
	if shape := literals.ReplaceAllString(string(raw), "?"); p.seen[shape] == nil {
		p.seen[shape] = find
	}
}

// literals are the values of a filter: two commands that differ in them alone are planned alike.
var literals = regexp.MustCompile(
	`\{"\$(?:numberInt|numberLong|numberDouble|oid|binary|date)":(?:"[^"]*"|\{[^}]*\})\}|:"(?:[^"\\]|\\.)*"`)

// finds returns what a command looks for, as finds: the filters of updates and deletes, the first stage of an
// aggregation.
func finds(e *event.CommandStartedEvent) (list []bson.D) {
	coll, ok := e.Command.Lookup(e.CommandName).StringValueOK()
	if !ok {
		return nil
	}
	add := func(in bson.Raw, filter string, others ...string) {
		q, ok := in.Lookup(filter).DocumentOK()
		if !ok {
			return
		}
		find := bson.D{{Key: "find", Value: coll}, {Key: "filter", Value: q}}
		for _, other := range others {
			if v, err := in.LookupErr(other); err == nil {
				find = append(find, bson.E{Key: other, Value: v})
			}
		}
		list = append(list, find)
	}
	each := func(array string, do func(bson.Raw)) {
		values, _ := e.Command.Lookup(array).ArrayOK()
		elements, _ := values.Values()
		for _, v := range elements {
			if doc, ok := v.DocumentOK(); ok {
				do(doc)
			}
		}
	}
	switch e.CommandName {
	case "find":
		add(e.Command, "filter", "sort", "limit")
	case "update":
		each("updates", func(doc bson.Raw) { add(doc, "q") })
	case "delete":
		each("deletes", func(doc bson.Raw) { add(doc, "q") })
	case "findAndModify", "distinct", "count":
		add(e.Command, "query", "sort")
	case "aggregate":
		if _, err := e.Command.LookupErr("pipeline", "0", "$changeStream"); err == nil {
			return nil // it reads the oplog
		}
		each("pipeline", func(doc bson.Raw) {
			if len(list) == 0 {
				add(doc, "$match")
			}
		})
	}
	return list
}

// Unindexed explains what was collected, and returns that for which the server reads documents that no index has
// selected: all but the conditions beside an _id must be bounds of an index. all is how many there were. It reads the
// plans of FerretDB, whose conditions beyond the bounds of an index are a Filter, and of MongoDB, whose COLLSCAN reads
// all.
func (p *MongoPlans) Unindexed(t testing.TB, db *mongo.Database) (list []string, all int) {
	t.Helper()
	p.mu.Lock()
	seen := p.seen
	p.seen = nil
	p.mu.Unlock()
	for shape, find := range seen {
		var plan bson.M
		if err := db.RunCommand(t.Context(), bson.D{{Key: "explain", Value: find}}).Decode(&plan); err != nil {
			t.Fatalf("testenv: explain %s: %v", shape, err)
		}
		if readsMore(plan["queryPlanner"]) {
			list = append(list, fmt.Sprintf("%s\n%.10000v", shape, plan["queryPlanner"]))
		}
	}
	return list, len(seen)
}

// readsMore reports whether a part of a plan reads what it then leaves out.
func readsMore(part any) bool {
	switch v := part.(type) {
	case bson.D:
		m := bson.M{}
		for _, e := range v {
			m[e.Key] = e.Value
		}
		return readsMore(m)
	case bson.M:
		text := fmt.Sprint(v)
		if v["Function Name"] == "empty_data_table" { // the collection was not made
			return false
		}
		if v["Node Type"] == "Seq Scan" { // the best plan for a few documents, where they have been analysed meanwhile
			return false
		}
		byID := strings.Contains(text, "object_id OPERATOR")
		if v["stage"] == "COLLSCAN" || v["Filter"] != nil && !byID {
			return true
		}
		if cond, ok := v["Index Cond"].(string); ok && shardOnly.MatchString(cond) {
			return true
		}
		for _, child := range v {
			if readsMore(child) {
				return true
			}
		}
	case bson.A:
		return slices.ContainsFunc(v, readsMore)
	}
	return false
}

// shardOnly is the condition of a scan of a whole collection.
var shardOnly = regexp.MustCompile(`^\(shard_key_value = '[0-9]+'::bigint\)$`)
