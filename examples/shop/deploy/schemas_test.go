//go:build manifests

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sillar-go/sillar/internal/testenv"
)

// The manifests are valid by the schemas of Kubernetes, the Gateway API and the Prometheus operator, which know each
// field and its type.
func TestManifestsFitTheSchemas(t *testing.T) {
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	validate, crds := filepath.Join(bin, "kubectl-validate"), filepath.Join(bin, "crds")
	for _, need := range []string{validate, crds} {
		if _, err := os.Stat(need); err != nil {
			testenv.Missing(t, need+" is not here: make bin/kubectl-validate bin/crds")
		}
	}
	check := func(file string) (string, error) {
		out, err := exec.CommandContext(t.Context(), validate, "--version", "1.30", "--local-crds", crds,
			file).CombinedOutput()
		return string(out), err
	}
	for _, overlay := range []string{"dev", "prod", "gateway-api"} {
		t.Run(overlay, func(t *testing.T) {
			dir := filepath.Join("kubernetes", "overlays", overlay)
			cmd := exec.CommandContext(t.Context(), "kustomize", "build", dir)
			if cmd.Err != nil {
				cmd = exec.CommandContext(t.Context(), "kubectl", "kustomize", dir)
			}
			if cmd.Err != nil {
				testenv.Missing(t, getKustomize)
			}
			built, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), overlay+".yaml")
			if err := os.WriteFile(file, built, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := check(file); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			wrong := strings.Replace(string(built), "  maxReplicas:", "  maxReplica:", 1)
			if overlay == "dev" {
				wrong = strings.Replace(string(built), "replicas: 1", "replicas: one", 1)
			}
			if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := check(file); err == nil {
				t.Errorf("a wrong field is not found, so the schemas are not used: %s", out)
			}
		})
	}
}
