package authntest_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sillar-go/sillar/authn"
	"github.com/sillar-go/sillar/authn/authntest"
)

// The stores below are each wrong in one way.

type forgetsUse struct{ *authn.MemoryTokens }

func (f forgetsUse) Rotate(ctx context.Context, r authn.Rotation) error {
	r.Grace = time.Hour
	return f.MemoryTokens.Rotate(ctx, r)
}

// judgesByClock trusts the callers' clocks where there is no grace, so that one that is behind uses a token again.
type judgesByClock struct{ *authn.MemoryTokens }

func (j judgesByClock) Rotate(ctx context.Context, r authn.Rotation) error {
	old, err := j.Lookup(ctx, r.Old)
	if err == nil && r.Grace == 0 && !old.UsedAt.IsZero() && !r.Now.After(old.UsedAt) {
		return j.Create(ctx, r.Next)
	}
	return j.MemoryTokens.Rotate(ctx, r)
}

// roundsNumbers keeps claims as encoding/json reads them.
type roundsNumbers struct{ *authn.MemoryTokens }

func (r roundsNumbers) Create(ctx context.Context, s authn.RefreshToken) error {
	data, err := json.Marshal(s.Subject.Claims)
	if err != nil {
		return err
	}
	s.Subject.Claims = nil
	if err := json.Unmarshal(data, &s.Subject.Claims); err != nil {
		return err
	}
	return r.MemoryTokens.Create(ctx, s)
}

type keepsFamily struct{ *authn.MemoryTokens }

func (keepsFamily) RevokeFamily(context.Context, string) error { return nil }

type keepsSubject struct{ *authn.MemoryTokens }

func (keepsSubject) RevokeSubject(context.Context, string) error { return nil }

type ignoresExpiry struct{ *authn.MemoryTokens }

func (i ignoresExpiry) Rotate(ctx context.Context, r authn.Rotation) error {
	r.Now = r.Now.Add(-3 * time.Hour)
	return i.MemoryTokens.Rotate(ctx, r)
}

type losesClaims struct{ *authn.MemoryTokens }

func (l losesClaims) Create(ctx context.Context, s authn.RefreshToken) error {
	s.Subject.Claims = nil
	return l.MemoryTokens.Create(ctx, s)
}

type shortens struct {
	*authn.MemoryTokens
	ids map[string]time.Time
}

func (s shortens) RevokeID(_ context.Context, id string, until time.Time) error {
	s.ids[id] = until
	return nil
}
func (s shortens) Revoked(_ context.Context, id string) (bool, error) {
	_, ok := s.ids[id]
	return ok, nil
}
func (s shortens) Purge(_ context.Context, now time.Time) (int, error) {
	for id, until := range s.ids {
		if !now.Before(until) {
			delete(s.ids, id)
		}
	}
	return 0, nil
}

type purgesAll struct{ *authn.MemoryTokens }

func (p purgesAll) Purge(ctx context.Context, now time.Time) (int, error) {
	return p.MemoryTokens.Purge(ctx, now.Add(24*time.Hour))
}

// inTwoSteps looks and then writes, with time for others in between.
type inTwoSteps struct {
	*authn.MemoryTokens
}

func (i *inTwoSteps) Rotate(ctx context.Context, r authn.Rotation) error {
	if _, err := i.Lookup(ctx, r.Old); err != nil {
		return err
	}
	time.Sleep(5 * time.Millisecond)
	return i.Create(ctx, r.Next)
}

type lastWins struct{ *authn.MemoryKeys }

func (l lastWins) Save(ctx context.Context, keys []authn.Key, _ int64) error {
	_, v, err := l.Load(ctx)
	if err != nil {
		return err
	}
	return l.MemoryKeys.Save(ctx, keys, v)
}

type losesExpiry struct{ *authn.MemoryKeys }

func (l losesExpiry) Save(ctx context.Context, keys []authn.Key, v int64) error {
	for i := range keys {
		keys[i].ExpiresAt = time.Time{}
	}
	return l.MemoryKeys.Save(ctx, keys, v)
}

// listsOldest lists a session by a token that was exchanged.
type listsOldest struct{ *authn.MemoryTokens }

func (l listsOldest) Rotate(ctx context.Context, r authn.Rotation) error {
	r.Next.CreatedAt = r.Next.CreatedAt.Add(-time.Hour)
	return l.MemoryTokens.Rotate(ctx, r)
}

// listsExpired lists sessions that have ended.
type listsExpired struct{ *authn.MemoryTokens }

func (l listsExpired) Sessions(ctx context.Context, subject string, _ time.Time) ([]authn.RefreshToken, error) {
	return l.MemoryTokens.Sessions(ctx, subject, time.Time{})
}

// rotatesAny rotates an API key whatever its hash is.
type rotatesAny struct{ *authn.MemoryAPIKeys }

func (m rotatesAny) Rotate(ctx context.Context, r authn.APIKeyRotation) error {
	k, err := m.Lookup(ctx, r.ID)
	if err != nil {
		return err
	}
	r.Old = k.Hash
	return m.MemoryAPIKeys.Rotate(ctx, r)
}

// keepsExpiry forgets the new end of a rotated key.
type keepsExpiry struct{ *authn.MemoryAPIKeys }

func (m keepsExpiry) Rotate(ctx context.Context, r authn.APIKeyRotation) error {
	r.ExpiresAt = time.Time{}
	return m.MemoryAPIKeys.Rotate(ctx, r)
}

// purgesForever purges keys that do not expire.
type purgesForever struct{ *authn.MemoryAPIKeys }

func (m purgesForever) Purge(ctx context.Context, now time.Time) (int, error) {
	n, err := m.MemoryAPIKeys.Purge(ctx, now)
	return n, errors.Join(err, m.Delete(ctx, "c"))
}

func apiKeys(wrong func(*authn.MemoryAPIKeys) authn.APIKeyStore) func(*testing.T) {
	return func(t *testing.T) {
		authntest.RunAPIKeys(t, func(*testing.T) authn.APIKeyStore { return wrong(authn.NewMemoryAPIKeys()) })
	}
}

func tokens(wrong func(*authn.MemoryTokens) authn.TokenStore) func(*testing.T) {
	return func(t *testing.T) {
		authntest.RunTokens(t, func(*testing.T) authn.TokenStore { return wrong(authn.NewMemoryTokens()) })
	}
}

func keys(wrong func(*authn.MemoryKeys) authn.KeyStore) func(*testing.T) {
	return func(t *testing.T) {
		authntest.RunKeys(t, func(*testing.T) (authn.KeyStore, func() authn.KeyStore) {
			return wrong(authn.NewMemoryKeys()), nil
		})
	}
}

var planted = map[string]struct {
	run   func(*testing.T)
	fails string // the part of the suite that has to notice
}{
	"forgetsUse":    {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return forgetsUse{m} }), "reuse"},
	"judgesByClock": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return judgesByClock{m} }), "strict_races"},
	"roundsNumbers": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return roundsNumbers{m} }), "round_trip"},
	"keepsFamily":   {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return keepsFamily{m} }), "revocation"},
	"keepsSubject": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return keepsSubject{m} }),
		"revoke_against_rotate"},
	"ignoresExpiry": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return ignoresExpiry{m} }), "expiry"},
	"losesClaims":   {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return losesClaims{m} }), "round_trip"},
	"shortens": {tokens(func(m *authn.MemoryTokens) authn.TokenStore {
		return shortens{m, map[string]time.Time{}}
	}), "revoked_ids"},
	"purgesAll": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return purgesAll{m} }), "purge"},
	"inTwoSteps": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return &inTwoSteps{MemoryTokens: m} }),
		"revoke_against_rotate"},
	"noUse": {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return &inTwoSteps{MemoryTokens: m} }),
		"rotation"},
	"listsOldest":   {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return listsOldest{m} }), "sessions"},
	"listsExpired":  {tokens(func(m *authn.MemoryTokens) authn.TokenStore { return listsExpired{m} }), "sessions"},
	"rotatesAny":    {apiKeys(func(m *authn.MemoryAPIKeys) authn.APIKeyStore { return rotatesAny{m} }), "rotation_races"},
	"keepsExpiry":   {apiKeys(func(m *authn.MemoryAPIKeys) authn.APIKeyStore { return keepsExpiry{m} }), "rotation"},
	"purgesForever": {apiKeys(func(m *authn.MemoryAPIKeys) authn.APIKeyStore { return purgesForever{m} }), "purge"},
	"lastWins":      {keys(func(m *authn.MemoryKeys) authn.KeyStore { return lastWins{m} }), "conflict"},
	"losesExpiry":   {keys(func(m *authn.MemoryKeys) authn.KeyStore { return losesExpiry{m} }), "round_trip"},
}

const variable = "AUTHNTEST_PLANTED"

// TestSuiteFindsPlantedBugs runs the suite on wrong stores, each in a process of its own, and expects it to notice.
func TestSuiteFindsPlantedBugs(t *testing.T) {
	if name := os.Getenv(variable); name != "" {
		planted[name].run(t)
		return
	}
	for name, p := range planted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSuiteFindsPlantedBugs$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatal("the suite passes")
			}
			if !strings.Contains(string(out), "--- FAIL: TestSuiteFindsPlantedBugs/"+p.fails) {
				t.Errorf("%s did not notice:\n%s", p.fails, out)
			}
		})
	}
}
