package repository_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

var wrongTypes = []struct{ what, statement, says string }{
	{"text for a number", `Price.Gte("5")`, `cannot use "5" (untyped string constant) as int64 value`},
	{"a number for text", `Name.Eq(5)`, `cannot use 5 (untyped int constant) as string value`},
	{"another integer type", `Price.Eq(int32(5))`, `cannot use int32(5)`},
	{"an order on a bool", `Paid.Gt(true)`, `Paid.Gt undefined`},
	{"a prefix of a number", `Price.HasPrefix("1")`, `Price.HasPrefix undefined`},
	{"a sort by a bool", `Paid.Asc()`, `Paid.Asc undefined`},
	{"a time as text", `Made.Since("2026-01-01")`, `Time value in argument`},
	{"NULL of what is never NULL", `Price.IsNull()`, `Price.IsNull undefined`},
	{"text for what may be NULL", `Sold.Eq("x")`, `Time value in argument`},
	{"a filter of another entity", `Name.Eq("x").And(Of.Eq("y"))`, `as repository.Filter[Product] value`},
	{"a sort of another entity", `repository.Query[Product]{Sort: []repository.Sort[Product]{Of.Asc()}}`,
		`as repository.Sort[Product] value`},
	{"a field of another type", `repository.Ord(func(p *Product) *int64 { return &p.Name })`, `cannot use &p.Name`},
}

// Filters of the wrong type do not compile: a mistake in a query is found before it is sent.
func TestWrongTypesDoNotCompile(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// Below this folder, so that the program belongs to the module; tools pass over folders that begin with _.
	dir, err := os.MkdirTemp(wd, "_compile") //nolint:usetesting // it must lie below this folder
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	vet := func(name, statement string) string {
		program := fmt.Sprintf(`package p

import (
	"time"

	"github.com/sillar-go/sillar/repository"
)

type Product struct {
	repository.Meta
	Name  string
	Price int64
	Sold  *time.Time
	Paid  bool
}

type Order struct{ repository.Meta }

var (
	Name  = repository.Text(func(p *Product) *string { return &p.Name })
	Price = repository.Ord(func(p *Product) *int64 { return &p.Price })
	Paid  = repository.Eq(func(p *Product) *bool { return &p.Paid })
	Sold  = repository.Null(func(p *Product) **time.Time { return &p.Sold })
	Made  = repository.Time(func(p *Product) *time.Time { return &p.CreatedAt })
	Of    = repository.Text(func(o *Order) *string { return &o.ID })
)

var _ = %s
`, statement)
		file := filepath.Join(dir, name+".go")
		if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		build := append([]string{"build", "-o", os.DevNull}, testenv.BuildFlags()...)
		out, err := exec.CommandContext(t.Context(), "go", append(build, file)...).CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}
	if out := vet("good",
		`Price.Gte(5).And(Name.HasPrefix("L"), Paid.Eq(true), Sold.Lt(time.Now()), Made.Since(time.Now()))`); out != "" {
		t.Fatalf("what is right does not compile:\n%s", out)
	}
	for i, c := range wrongTypes {
		if out := vet(fmt.Sprintf("bad%d", i), c.statement); !strings.Contains(out, c.says) {
			t.Errorf("%s, %s: the compiler says %q, want %q", c.what, c.statement, out, c.says)
		}
	}
}
