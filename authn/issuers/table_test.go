package issuers_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/authn"
)

// table is the table of docs/issuers.md: what TestPresetsAcceptDocumentedTokensAndRefuseOthers accepts, one row per
// token.
type table []string

const tableHead = "| issuer | `alg` | `typ` | audience | roles | scopes | client |\n|---|---|---|---|---|---|---|\n"

func newTable() *table { return &table{} }

func (l *table) add(name string, cfg authn.VerifierConfig, k key, header map[string]any, c claims) {
	typ := "none"
	if v, ok := header["typ"]; ok {
		typ = fmt.Sprintf("`%s`", v)
	}
	*l = append(*l, fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |\n", name, k.method.Alg(), typ,
		shape(c, cmp.Or(cfg.AudienceClaim, "aud")), shape(c, cmp.Or(cfg.RolesClaim, "roles")),
		shape(c, "scope", "scp"), shape(c, "client_id", "azp", "cid", "appid")))
}

// shape describes the first of the claims that is there.
func shape(c claims, names ...string) string {
	for _, name := range names {
		v, there := c[name]
		for i := 0; i < len(name) && !there; i++ { // a path, such as realm_access.roles
			if object, ok := c[name[:i]].(claims); ok && name[i] == '.' {
				if shape(object, name[i+1:]) != "none" {
					v, there = []string{}, true // all of them are arrays
				}
			}
		}
		if !there {
			continue
		}
		kind := "a string"
		if null, ok := v.(json.RawMessage); ok {
			kind = string(null)
		}
		switch reflect.ValueOf(v).Kind() {
		case reflect.Slice:
			if kind == "null" {
				break
			}
			kind = "an array"
		case reflect.Map:
			kind = "an object"
		}
		return fmt.Sprintf("`%s`, %s", name, kind)
	}
	return "none"
}

// check compares the table of a page with the rows.
func (l *table) check(t *testing.T, page string) {
	t.Helper()
	slices.Sort(*l)
	want := tableHead + strings.Join(*l, "")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n"+want+"\n") {
		t.Errorf("the table of %s differs from the tokens of this test, which are:\n%s", page, want)
	}
}
