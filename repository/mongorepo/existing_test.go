package mongorepo_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sillar-go/sillar/internal/testenv"
	"github.com/sillar-go/sillar/repository"
	"github.com/sillar-go/sillar/repository/mongorepo"
)

// Two versions of a program, which know different fields.
type (
	address struct {
		City string `json:"city"`
	}
	line struct {
		SKU string `json:"sku"`
		Qty int    `json:"qty"`
	}
	oldOrder struct {
		repository.Meta
		Customer string
		Address  address
		Lines    []line
	}
	newOrder struct {
		repository.Meta
		Customer string
		Address  struct {
			address
			Zip string `json:"zip"`
		}
		Lines []struct {
			line
			Gift bool `json:"gift"`
		}
		Channel string
		Ratio   map[string]float64
		Big     any
	}
)

func jsonValue(t *testing.T, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOldVersionKeepsWhatANewerOneWrote(t *testing.T) {
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	ctx, cfg := t.Context(), mongorepo.Config{Collection: "orders"}
	olds := mongorepo.Must(mongorepo.New[oldOrder](ctx, db, cfg))
	news := mongorepo.Must(mongorepo.New[newOrder](ctx, db, cfg))
	var in newOrder
	in.Customer, in.Channel, in.Address.City, in.Address.Zip = "ana", "web", "Lima", "15001"
	in.Lines = append(in.Lines, struct {
		line
		Gift bool `json:"gift"`
	}{line{"lamp", 1}, true})
	in.Ratio = map[string]float64{"a": 0.1, "b": 3}
	want, err := news.Create(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := olds.Update(ctx, want.ID, func(_ context.Context, o *oldOrder) error {
		o.Address.City, o.Lines[0].Qty = "Cusco", 7
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	o, err := olds.Get(ctx, want.ID)
	if err != nil {
		t.Fatal(err)
	}
	o.Customer = "bea"
	if _, err := olds.Replace(ctx, o); err != nil {
		t.Fatal(err)
	}
	want.Address.City, want.Lines[0].Qty, want.Customer, want.Version = "Cusco", 7, "bea", 3
	got, err := news.Get(ctx, want.ID)
	want.UpdatedAt = got.UpdatedAt
	if err != nil || !reflect.DeepEqual(want, got) {
		t.Errorf("%v\nwant %+v\ngot  %+v", err, want, got)
	}
	// The server reaches into what is stored.
	n, err := db.Collection("orders").CountDocuments(ctx, bson.D{{Key: "address.city", Value: "Cusco"},
		{Key: "lines.qty", Value: bson.D{{Key: "$gt", Value: 6}}}})
	if n != 1 || err != nil {
		t.Errorf("%d documents by a nested field, %v", n, err)
	}
}

// What BSON would not hold as it is stays text, and reads as it was.
func TestWhatDocumentsCannotHold(t *testing.T) {
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	r := mongorepo.Must(mongorepo.New[newOrder](t.Context(), db, mongorepo.Config{Collection: "orders"}))
	for _, big := range []string{`{"n":123456789012345678901234567890}`, `{"$set":{"a":1}}`, `{"a.b":1}`, `{"":1}`,
		`[1e-400]`, `"{}"`, `[[],{},null,true,-0,1.5,"x"]`,
		`{"a":{"b":[{"c":9007199254740993}]}}`, `7`, `[1.0]`} {
		var in newOrder
		in.Big = jsonValue(t, big)
		stored, err := r.Create(t.Context(), in)
		if err != nil {
			t.Errorf("%s: %v", big, err)
			continue
		}
		got, err := r.Get(t.Context(), stored.ID)
		if d := cmp.Diff(in.Big, got.Big); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", big, err, d)
		}
	}
}

// Documents of another program have ObjectIDs, nested documents, dates, doubles for all numbers, and no version.
func TestDocumentsOfOtherPrograms(t *testing.T) {
	db := testenv.MongoDatabase(t, testenv.Mongo(t))
	ctx := t.Context()
	var keys []bson.ObjectID
	for i := range 5 {
		keys = append(keys, bson.NewObjectID())
		if _, err := db.Collection("orders").InsertOne(ctx, bson.D{{Key: "_id", Value: keys[i]},
			{Key: "customer", Value: "ana"},
			{Key: "address", Value: bson.D{{Key: "city", Value: "Lima"}, {Key: "since", Value: time.Now()},
				{Key: "owner", Value: bson.NewObjectID()}}},
			{Key: "lines", Value: bson.A{bson.D{{Key: "sku", Value: "lamp"}, {Key: "qty", Value: 2.0},
				{Key: "note", Value: nil}}}}}); err != nil {
			t.Fatal(err)
		}
	}
	r := mongorepo.Must(mongorepo.New[oldOrder](ctx, db, mongorepo.Config{Collection: "orders", ObjectIDs: true}))
	id := keys[1].Hex()
	got, err := r.Get(ctx, id)
	if err != nil || got.ID != id || got.Address.City != "Lima" || len(got.Lines) != 1 ||
		got.Lines[0] != (line{"lamp", 2}) {
		t.Fatalf("Get: %+v, %v", got, err)
	}
	begin := time.Now()
	if _, err := r.Update(ctx, id, func(_ context.Context, o *oldOrder) error {
		o.Address.City = "Cusco"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the first update took %v", took)
	}
	n, err := db.Collection("orders").CountDocuments(ctx, bson.D{{Key: "_id", Value: keys[1]},
		{Key: "address.city", Value: "Cusco"},
		{Key: "address.owner", Value: bson.D{{Key: "$exists", Value: true}}}, {Key: "version", Value: 1}})
	if n != 1 || err != nil {
		t.Errorf("after the update %d documents are as expected, %v", n, err)
	}
	made, err := r.Create(ctx, oldOrder{Customer: "bea"})
	if _, perr := bson.ObjectIDFromHex(made.ID); err != nil || perr != nil {
		t.Errorf("Create made the id %q, %v", made.ID, err)
	}
	var walked []string
	for o, err := range r.Each(ctx, repository.Query[oldOrder]{Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		walked = append(walked, o.ID)
	}
	want := []string{keys[0].Hex(), id, keys[2].Hex(), keys[3].Hex(), keys[4].Hex(), made.ID}
	if d := cmp.Diff(want, walked); d != "" {
		t.Errorf("pages (-want +got):\n%s", d)
	}
	if many, err := r.GetMany(ctx, []string{made.ID, "none", id}); err != nil || len(many) != 2 {
		t.Errorf("GetMany: %v, %v", many, err)
	}
	for _, none := range []string{"none", "", bson.NewObjectID().Hex()} {
		if _, err := r.Get(ctx, none); !errors.Is(err, repository.ErrNotFound) {
			t.Errorf("Get %q: %v", none, err)
		}
		if err := r.Delete(ctx, none); !errors.Is(err, repository.ErrNotFound) {
			t.Errorf("Delete %q: %v", none, err)
		}
	}
	if err := r.Delete(ctx, keys[4].Hex()); err != nil { // has no version
		t.Error(err)
	}
	if _, err := r.Create(ctx, oldOrder{Meta: repository.Meta{ID: "mine"}}); !errors.Is(err, repository.ErrValue) {
		t.Errorf("Create with an id that is no ObjectID: %v, want ErrValue", err)
	}
}
