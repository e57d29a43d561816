package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

// fakeKubectl notes its calls, has revision 3 of each Deployment before it applies and 4 after, and fails where FAIL
// says so.
const fakeKubectl = `#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
kustomize*) echo "        image: ghcr.io/sillar-go/sillar-shop:0.1.0" ;;
*"get deployment"*) [ -e "$CALLS.applied" ] && printf 4 || printf "$BEFORE" ;;
apply*) cp "$3" "$CALLS.applied"; [ "$FAIL" != apply ] ;;
*"rollout status deployment/shop-orders"*) [ "$FAIL" != status ] ;;
esac
`

func TestRolloutGoesBackWhenAnythingFails(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		testenv.Missing(t, "no bash: apt-get install bash")
	}
	for _, c := range []struct {
		name, fail, before string
		undone             int
	}{
		{"nothing fails", "", "3", 0},
		{"a pod does not become ready", "status", "3", 7},
		{"the demonstration fails", "demo", "3", 7},
		{"the manifests are refused", "apply", "3", 7},
		{"the first roll-out fails", "demo", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			calls := filepath.Join(dir, "calls")
			for name, text := range map[string]string{
				"kubectl": fakeKubectl,
				"shop":    "#!/bin/sh\necho \"shop $*\" >>\"$CALLS\"\n[ \"$FAIL\" != demo ]\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "bash", "rollout.sh")
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "CALLS="+calls, "FAIL="+c.fail, "BEFORE="+c.before,
				"OVERLAY=kubernetes/overlays/prod", "TAG=1.2.3", "GATEWAY=http://shop", "SHOP="+filepath.Join(dir, "shop"))
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.fail == "") {
				t.Errorf("ended with %v:\n%s", err, out)
			}
			log := string(read(t, calls))
			if got := strings.Count(log, "rollout undo"); got != c.undone {
				t.Errorf("%d Deployments went back, want %d:\n%s", got, c.undone, log)
			}
			if c.undone > 0 && strings.Count(log, "--to-revision=3") != c.undone {
				t.Errorf("they did not go back to the revision before:\n%s", log)
			}
			if applied := string(read(t, calls+".applied")); !strings.Contains(applied, "sillar-shop:1.2.3\n") {
				t.Errorf("applied %s", applied)
			}
			lines := strings.Split(log, "\n")
			demo := slices.IndexFunc(lines, func(l string) bool {
				return strings.HasPrefix(l, "shop demo --gateway http://shop")
			})
			last := slices.IndexFunc(lines, func(l string) bool {
				return strings.Contains(l, "rollout status deployment/shop-gateway")
			})
			if c.fail == "" && (demo < 0 || demo < last) {
				t.Errorf("the demonstration did not come after the roll-out:\n%s", log)
			}
		})
	}
}

// A tag of an action can be moved to other code; a commit cannot.
func TestActionsArePinned(t *testing.T) {
	uses := regexp.MustCompile(`(?m)uses: (\S+)(.*)$`)
	pinned := regexp.MustCompile(`@[0-9a-f]{40}$`)
	checked := 0
	for _, name := range glob(t, "../../../.github/workflows/*.yml") {
		for _, m := range uses.FindAllStringSubmatch(string(read(t, name)), -1) {
			if strings.HasPrefix(m[1], "./") {
				continue
			}
			if checked++; !pinned.MatchString(m[1]) || !strings.HasPrefix(m[2], " # v") {
				t.Errorf("%s: %s is not pinned, with its version as a comment", name, m[1])
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d actions were found", checked)
	}
}
