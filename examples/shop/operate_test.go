package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/repository/sqldb"
	"github.com/sillar-go/sillar/saga"
	"github.com/sillar-go/sillar/saga/sagasql"
)

// An operator finds a saga that is stuck at its last step, sees how it came there, cannot skip what it is not stuck at,
// and lets it go on: once by another try, once by having done the step by hand.
func TestSagasCommand(t *testing.T) {
	h, o := openShop(t)
	token := signIn(t, h.URL(), "ana")
	lamps := func() float64 {
		_, body := ask(t, t.Context(), token, "GET", h.URL()+"/inventory/api/v1/inventory/prod-lamp", "")
		n, _ := body["on_hand"].(float64)
		return n
	}
	before := lamps()
	for end := time.Now().Add(30 * time.Second); before == 0 && time.Now().Before(end); before = lamps() {
		time.Sleep(20 * time.Millisecond)
	}
	code, order := ask(t, t.Context(), token, "POST", h.URL()+"/orders/api/v1/orders",
		`{"items":[{"product_id":"prod-lamp","quantity":1}],"payment_method":"pm_card_visa"}`)
	if code != 201 {
		t.Fatalf("the order: %d %v", code, order)
	}
	db := sqldb.Must(sqldb.Open(t.Context(), "sqlite:"+filepath.Join(o.data, "orders.db"), sqldb.Config{}))
	defer db.Close()
	store := sagasql.Must(sagasql.New(db, sagasql.Config{History: true}))
	commit := func(want saga.Status) saga.Record {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			list, err := store.List(t.Context(), saga.Filter{Name: "place-order"})
			if err != nil || len(list) != 1 {
				t.Fatalf("%d sagas, %v", len(list), err)
			}
			if list[0].Status == want {
				return list[0]
			}
			if time.Now().After(end) {
				t.Fatalf("the saga is %s, want %s", list[0].Status, want)
			}
		}
	}
	stick := func() saga.Record { // as if its attempts had been used up
		r := commit(saga.Completed)
		r.Status, r.Cursor, r.FailedStep, r.Cause = saga.Stuck, len(r.Steps)-1, "commit-reservation", "no answer"
		r.Steps[r.Cursor].Status, r.Steps[r.Cursor].InDoubt, r.Steps[r.Cursor].Error = saga.StepFailed, true, "no answer"
		if err := store.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	run := func(ok bool, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		cmd := root()
		cmd.SetArgs(append(append([]string{"sagas"}, args...), "--gateway", h.URL()))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		if err := cmd.ExecuteContext(t.Context()); (err == nil) != ok {
			t.Errorf("sagas %v: %v", args, err)
		} else if err != nil {
			return err.Error()
		}
		return out.String()
	}
	like := func(what, text, want string) {
		t.Helper()
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s: no %q in\n%s", what, want, text)
		}
	}

	r := stick()
	like("list", run(true, "list", "--status", "stuck"),
		`(?m)^`+r.ID+` +place-order +stuck +[0-9: -]+ +commit-reservation +no answer$`)
	if out := run(true, "list", "--status", "completed"); strings.Contains(out, r.ID) {
		t.Errorf("a stuck saga is listed as completed: %s", out)
	}
	shown := run(true, "show", r.ID)
	like("show", shown,
		`(?s)STUCK  because commit-reservation said: no answer.*reserve-inventory +COMPLETED.*commit-reservation +FAILED, in doubt  no answer`)
	like("show", shown,
		`(?s)running +create-order +orders-.*running +process-payment.*running +confirm-order.*completed +commit-reservation.*stuck +commit-reservation`)
	like("skip of another step", run(false, "skip", r.ID, "--step", "process-payment", "--reason", "x"),
		`not stuck at that step`)
	like("retry of none", run(false, "retry", "none"), `none`)
	like("retry", run(true, "retry", r.ID), `retry by [0-9a-f-]{36}`)
	commit(saga.Completed)
	like("retry of one that has ended", run(false, "retry", r.ID), `not stuck`)

	stick()
	like("skip without a reason", run(false, "skip", r.ID, "--step", "commit-reservation"), `reason`)
	like("skip", run(true, "skip", r.ID, "--step", "commit-reservation", "--reason", "counted by hand"),
		`COMPLETED(?s:.*)skip by [0-9a-f-]{36} commit-reservation counted by hand`)
	if got := lamps(); got != before-1 {
		t.Errorf("%v lamps of %v: the commit that was tried again counted twice", got, before)
	}
}
