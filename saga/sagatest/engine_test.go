//go:build !race

package sagatest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

// edit replaces a piece of a file of package saga.
type edit struct{ file, old, with string }

// Bugs that are planted in the engine are found: Explore is run once more, by a compiler that is shown another engine.
func TestFindsBugsInTheEngine(t *testing.T) {
	if testing.Short() {
		testenv.Missing(t, "compiles the engine several times: run without -short")
	}
	for name, bug := range map[string]struct {
		explore string
		edits   []edit
	}{
		"no fence check": {"four", []edit{{"run.go",
			"			if gerr == nil || errors.Is(gerr, ErrNotFound) {\n				return err\n			}\n		case",
			"			r.rec.Fence, r.rec.Revision = stored.Fence, stored.Revision\n			continue\n		case"}}},
		"compensation before all branches have settled": {"parallel", []edit{{"parallel.go",
			"		if lost == nil && e.res.end != endPark {",
			"		if e.st.Status == StepFailed {\n			break\n		}\n		if lost == nil && e.res.end != endPark {"}}},
		"intent after the effect": {"four", []edit{
			{"run.go", "		} else {\n			r.intend()\n		}", "		}"},
			{"run.go", "		markInDoubt(st)\n		for", "		if st.Status == StepStarted {\n			markInDoubt(st)\n		}\n		for"}}},
		"intent after the compensation": {"four", []edit{{"compensate.go",
			"			u.st.UndoAttempts++\n			if err := r.save(ctx); err != nil {\n				return result{end: endLost, err: err}\n			}\n",
			"			u.st.UndoAttempts++\n"}}},
		"the attempt in the key": {"four", []edit{{"call.go",
			"signalSuffix(c.signal) + \"/do\"", "signalSuffix(c.signal) + \"/do\" + string(rune('0'+c.attempt))"}}},
		"an OnTimeout that does not run": {"waits", []edit{{"await.go",
			"r.attempts(ctx, stop, n, st, attemptOf{do: n.onTimeout}), true",
			"result{end: endDone, state: r.rec.State}, true"}}},
		"a pivot that is compensated": {"four", []edit{{"run.go",
			"		forward := r.rec.Cursor > r.def.pivot || r.rec.Cursor == r.def.pivot && st.InDoubt", "		forward := false"}}},
	} {
		t.Run(name, func(t *testing.T) {
			overlay := map[string]string{}
			for _, e := range bug.edits {
				file, err := filepath.Abs(filepath.Join("..", e.file))
				if err != nil {
					t.Fatal(err)
				}
				from := file
				if there := overlay[file]; there != "" {
					from = there
				}
				source, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Count(string(source), e.old) != 1 {
					t.Fatalf("%s has changed: the bug must be planted anew in place of %q", e.file, e.old)
				}
				overlay[file] = filepath.Join(t.TempDir(), e.file)
				if err := os.WriteFile(overlay[file], []byte(strings.Replace(string(source), e.old, e.with, 1)),
					0o600); err != nil {
					t.Fatal(err)
				}
			}
			list, err := json.Marshal(map[string]any{"Replace": overlay})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "overlay.json")
			if err := os.WriteFile(file, list, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", file, "-count=1", "-run",
				"^TestExploreFindsNoViolation$/^"+bug.explore+"$", ".").CombinedOutput()
			_, what, found := strings.Cut(string(out), "explore_test.go:")
			if err == nil || !found || !strings.Contains(what, "replay: sagatest.ExploreConfig{Replay:") {
				t.Fatalf("not found: %v\n%.3000s", err, out)
			}
			t.Logf("found: %.300s", what)
		})
	}
}
