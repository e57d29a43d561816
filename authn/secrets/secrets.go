package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strings"

	"github.com/sillar-go/sillar/internal/secret"
)

// Secret is a text that no way of printing shows. Reveal returns it.
type Secret = secret.Value[string]

// New wraps a text.
func New(s string) Secret { return secret.New(s) }

// Errors of sources, to be compared with errors.Is.
var (
	// ErrNotFound is matched when there is no secret where the reference points.
	ErrNotFound = errors.New("secrets: not found")
	// ErrReference is matched when a reference is of no known form.
	ErrReference = errors.New("secrets: unusable reference")
)

// Source finds secrets. A reference is what the source defines: Env a variable's name, File a path.
type Source interface {
	Get(ctx context.Context, ref string) (Secret, error)
}

// maxFile bounds the files that are read.
const maxFile = 1 << 20

// Env is the source of environment variables. An empty variable counts as none.
type Env struct{}

// Get implements Source. ref is NAME, or env:NAME.
func (Env) Get(_ context.Context, ref string) (Secret, error) {
	name := strings.TrimPrefix(ref, "env:")
	if name == "" || strings.ContainsAny(name, "= \t\n\x00") {
		return Secret{}, fmt.Errorf("%w: not the name of a variable", ErrReference)
	}
	v := os.Getenv(name)
	if v == "" {
		return Secret{}, fmt.Errorf("%w: the environment has no such variable", ErrNotFound)
	}
	return secret.New(v), nil
}

// File is the source of files, as container platforms mount secrets. One line break at the end is not part of the
// secret.
type File struct{}

// Get implements Source. ref is a path, or file:/path.
func (File) Get(ctx context.Context, ref string) (Secret, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(ref, "file:"), "//")
	if path == "" || strings.ContainsRune(path, 0) {
		return Secret{}, fmt.Errorf("%w: not a path", ErrReference)
	}
	if err := context.Cause(ctx); err != nil {
		return Secret{}, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Secret{}, fmt.Errorf("%w: no such file", ErrNotFound)
	}
	if err != nil {
		return Secret{}, errors.New("secrets: the file cannot be opened")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil || len(data) > maxFile {
		return Secret{}, errors.New("secrets: the file cannot be read, or is too long")
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if s == "" {
		return Secret{}, fmt.Errorf("%w: the file is empty", ErrNotFound)
	}
	return secret.New(s), nil
}

// Config tunes a Resolver. The zero Config knows env: and file:.
type Config struct {
	// Sources adds sources by the scheme of their references, such as "vault", and replaces "env" and "file"; nil takes
	// one of these away. A source gets the whole reference.
	Sources map[string]Source
	// AllowPlain takes a reference without a known scheme for the secret itself: for development. Default false.
	AllowPlain bool
}

// Resolver is the Source of references of several schemes.
type Resolver struct {
	sources map[string]Source
	plain   bool
}

// NewResolver returns a Resolver.
func NewResolver(cfg Config) (*Resolver, error) {
	sources := map[string]Source{"env": Env{}, "file": File{}}
	maps.Copy(sources, cfg.Sources)
	for scheme := range sources {
		if scheme == "" || strings.ContainsAny(scheme, ":/#") {
			return nil, fmt.Errorf("secrets: %q is no scheme", scheme)
		}
	}
	maps.DeleteFunc(sources, func(_ string, s Source) bool { return s == nil })
	return &Resolver{sources: sources, plain: cfg.AllowPlain}, nil
}

// Must returns r or panics with err.
func Must(r *Resolver, err error) *Resolver {
	if err != nil {
		panic(err)
	}
	return r
}

// Get implements Source.
func (r *Resolver) Get(ctx context.Context, ref string) (Secret, error) {
	scheme, _, ok := strings.Cut(ref, ":")
	if s := r.sources[scheme]; ok && s != nil {
		return s.Get(ctx, ref)
	}
	if r.plain {
		return secret.New(ref), nil
	}
	return Secret{}, fmt.Errorf("%w: no source for its scheme", ErrReference)
}
