// Package mongofake is a MongoDB replica set that answers what a test says: for what a real server does only at a
// failover, and for what is sent to which node. It stores nothing.
package mongofake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// Command is a command that a node got.
type Command struct {
	// Name is the command's, Collection what it is about.
	Name, Collection string
	// Secondary says that it went to the other node than the primary.
	Secondary bool
	// Body is all of it, with the documents of an insert, the updates and the deletes as arrays.
	Body bson.Raw
}

// Lookup returns a string or document of the body as text, or nothing.
func (c Command) Lookup(path ...string) string {
	v, err := c.Body.LookupErr(path...)
	if err != nil {
		return ""
	}
	if text, ok := v.StringValueOK(); ok {
		return text
	}
	return v.String()
}

// Lax are options of a client whose defaults promise little: one node acknowledges a write, any node is read.
func Lax() *options.ClientOptions {
	return options.Client().SetWriteConcern(writeconcern.W1()).SetReadPreference(readpref.SecondaryPreferred())
}

// Lapses returns what promises no more than Lax: writes that one node acknowledges, reads of another node than the
// primary; and what is part of a transaction.
func Lapses(commands []Command) (list []string) {
	for _, c := range commands {
		what := c.Name + " " + c.Collection + " "
		commit, transaction := c.Body.Lookup("autocommit").BooleanOK()
		switch {
		case transaction && !commit:
			list = append(list, what+"in a transaction")
		case c.Secondary:
			list = append(list, what+"at another node")
		case slices.Contains([]string{"insert", "update", "delete", "findAndModify"}, c.Name) &&
			c.Lookup("writeConcern", "w") != "majority":
			list = append(list, what+"at one node")
		}
	}
	return list
}

// Error is an answer that refuses a command.
func Error(code int32, name, message string, labels ...string) bson.D {
	d := bson.D{
		{Key: "ok", Value: 0.0},
		{Key: "code", Value: code},
		{Key: "codeName", Value: name},
		{Key: "errmsg", Value: message},
	}
	if len(labels) > 0 {
		d = append(d, bson.E{Key: "errorLabels", Value: labels})
	}
	return d
}

// Found is the answer of a find or an aggregation that finds documents.
func Found(docs ...bson.D) bson.D {
	list := bson.A{}
	for _, d := range docs {
		list = append(list, d)
	}
	return bson.D{
		{Key: "ok", Value: 1.0},
		{
			Key:   "cursor",
			Value: bson.D{{Key: "id", Value: int64(0)}, {Key: "ns", Value: "fake.c"}, {Key: "firstBatch", Value: list}},
		},
	}
}

// Start starts a primary and a secondary, until the test ends, and returns the database "fake" of a client of theirs
// and the commands since the last call. answer may return nil for an answer that fits: nothing is found, one document
// is changed.
func Start(
	t testing.TB,
	answer func(Command) bson.D,
	opts ...*options.ClientOptions,
) (db *mongo.Database, commands func() []Command) {
	t.Helper()
	s := &set{answer: answer}
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.hosts = append(s.hosts, l.Addr().String())
		s.listeners = append(s.listeners, l)
	}
	var all sync.WaitGroup
	for i, l := range s.listeners {
		all.Go(func() { s.serve(l, i == 1, &all) })
	}
	uri := "mongodb://" + s.hosts[0] + "," + s.hosts[1] + "/fake?replicaSet=fake"
	c, err := mongo.Connect(append([]*options.ClientOptions{options.Client().ApplyURI(uri)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range s.listeners {
			_ = l.Close()
		}
		s.close()
		_ = c.Disconnect(context.Background())
		all.Wait()
	})
	return c.Database("fake"), s.take
}

// Transaction returns a context that carries a transaction of the client of db, until the test ends.
func Transaction(t testing.TB, db *mongo.Database) context.Context {
	t.Helper()
	session, err := db.Client().StartSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.EndSession(context.Background()) })
	if err := session.StartTransaction(); err != nil {
		t.Fatal(err)
	}
	return mongo.NewSessionContext(t.Context(), session)
}

type set struct {
	answer    func(Command) bson.D
	hosts     []string
	listeners []net.Listener

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	got    []Command
}

func (s *set) take() []Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

func (s *set) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *set) serve(l net.Listener, secondary bool, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		if s.closed {
			_ = c.Close()
		}
		s.mu.Unlock()
		all.Go(func() {
			defer func() { _ = c.Close() }()
			for s.one(c, secondary) == nil {
			}
		})
	}
}

// Codes of the wire protocol (https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/).
const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013
)

// one reads a message and answers it.
func (s *set) one(c net.Conn, secondary bool) error {
	header := make([]byte, 16)
	if _, err := io.ReadFull(c, header); err != nil {
		return err
	}
	size, id, code := binary.LittleEndian.Uint32(
		header,
	), binary.LittleEndian.Uint32(
		header[4:],
	), binary.LittleEndian.Uint32(
		header[12:],
	)
	if size < 16 || size > 48<<20 {
		return errors.New("mongofake: not a message")
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	var command bson.Raw
	var before []byte // the answer
	reply := uint32(opMsg)
	switch code {
	case opQuery: // the first hello
		reply = opReply
		end := bytes.IndexByte(body[4:], 0)
		command = body[4+end+1+8:]
		before = binary.LittleEndian.AppendUint32(make([]byte, 16), 1) // flags, cursor, from; one document
	case opMsg:
		if body[0]&2 != 0 {
			return errors.New("mongofake: a write that wants no answer")
		}
		var err error
		if command, err = message(body[4:]); err != nil {
			return err
		}
		before = make([]byte, 5) // flags; one document
	default:
		return errors.New("mongofake: an unknown message")
	}
	doc, err := bson.Marshal(s.reply(command, secondary))
	if err != nil {
		return err
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(16+len(before)+len(doc)))
	out = binary.LittleEndian.AppendUint32(out, 0)
	out = binary.LittleEndian.AppendUint32(out, id)
	out = binary.LittleEndian.AppendUint32(out, reply)
	_, err = c.Write(append(append(out, before...), doc...))
	return err
}

// message puts the sections of a message together.
func message(sections []byte) (bson.Raw, error) {
	var whole bson.D
	for len(sections) > 5 {
		size := binary.LittleEndian.Uint32(sections[1:])
		if int(size) >= len(sections) {
			return nil, errors.New("mongofake: a section that is cut")
		}
		section := sections[1 : size+1]
		if sections[0] == 0 {
			var d bson.D
			if err := bson.Unmarshal(section, &d); err != nil {
				return nil, err
			}
			whole = append(d, whole...)
		} else {
			end := bytes.IndexByte(section[4:], 0)
			list := bson.A{}
			for rest := section[4+end+1:]; len(rest) > 4; {
				n := binary.LittleEndian.Uint32(rest)
				list = append(list, bson.Raw(rest[:n]))
				rest = rest[n:]
			}
			whole = append(whole, bson.E{Key: string(section[4 : 4+end]), Value: list})
		}
		sections = sections[size+1:]
	}
	return bson.Marshal(whole)
}

func (s *set) reply(body bson.Raw, secondary bool) bson.D {
	first := body.Index(0)
	name := first.Key()
	switch name {
	case "hello", "isMaster", "ismaster":
		me := s.hosts[0]
		if secondary {
			me = s.hosts[1]
		}
		return bson.D{
			{Key: "ok", Value: 1.0},
			{Key: "helloOk", Value: true},
			{Key: "isWritablePrimary", Value: !secondary},
			{Key: "ismaster", Value: !secondary},
			{
				Key:   "secondary",
				Value: secondary,
			},
			{Key: "setName", Value: "fake"},
			{Key: "setVersion", Value: int32(1)},
			{Key: "hosts", Value: s.hosts},
			{
				Key:   "me",
				Value: me,
			},
			{Key: "primary", Value: s.hosts[0]},
			{Key: "maxWireVersion", Value: int32(21)},
			{Key: "minWireVersion", Value: int32(0)},
			{
				Key:   "maxBsonObjectSize",
				Value: int32(16 << 20),
			},
			{Key: "maxMessageSizeBytes", Value: int32(48_000_000)},
			{Key: "maxWriteBatchSize", Value: int32(100_000)},
			{Key: "logicalSessionTimeoutMinutes", Value: int32(30)},
			{Key: "localTime", Value: bson.DateTime(1_700_000_000_000)},
		}
	case "endSessions", "ping":
		return bson.D{{Key: "ok", Value: 1.0}}
	}
	collection, _ := first.Value().StringValueOK()
	c := Command{Name: name, Collection: collection, Secondary: secondary, Body: body}
	return s.applyWrite(c, name)
}

// applyWrite records a write and answers it.
func (s *set) applyWrite(c Command, name string) bson.D {
	s.mu.Lock()
	s.got = append(s.got, c)
	s.mu.Unlock()
	if s.answer != nil {
		if d := s.answer(c); d != nil {
			return d
		}
	}
	switch name {
	case "find", "aggregate":
		return Found()
	case "distinct":
		return bson.D{{Key: "ok", Value: 1.0}, {Key: "values", Value: bson.A{}}}
	}
	return bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: int32(1)}, {Key: "nModified", Value: int32(1)}}
}
