package authn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/internal/secret"
)

// KeySource finds the keys that verify a token: a *KeySet in the process that issues, a jwks.Set elsewhere.
type KeySource interface {
	// Keys returns the keys that may have signed a token whose header names this key id (kid) and algorithm, as
	// FindKeys chooses them. It returns ErrUnknownKey when there is none, and an error that matches ErrUnavailable
	// when the source cannot be read now. The caller does not change the slice.
	Keys(ctx context.Context, id string, alg Algorithm) ([]VerifyKey, error)
}

// maxCandidates bounds the signatures that are checked for one token.
const maxCandidates = 8

// FindKeys returns the keys that may have signed a token with the given key id and algorithm: the key with that id,
// else the keys for alg that have no id, or, for a token without an id, all keys for alg. At most 8 are returned, so
// that a token never costs more than 8 checks of a signature.
func FindKeys(keys []VerifyKey, id string, alg Algorithm) []VerifyKey {
	if id != "" {
		if i := slices.IndexFunc(keys, func(k VerifyKey) bool { return k.ID == id }); i >= 0 {
			return keys[i : i+1 : i+1]
		}
	}
	var found []VerifyKey
	for i, k := range keys {
		if k.Algorithm != alg || id != "" && k.ID != "" {
			continue
		}
		if found == nil {
			found = keys[i : i+1 : i+1] // without an allocation for the only one
			continue
		}
		if found = append(found, k); len(found) == maxCandidates {
			break
		}
	}
	return found
}

// KeyConfig tunes a KeySet. The zero KeyConfig is useful.
type KeyConfig struct {
	// Algorithm of new keys. Default EdDSA. Verifiers in other languages may need ES256 or RS256.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. Default 30 days. Negative disables it: keys change only by Rotate.
	RotateEvery time.Duration
	// PublishAhead is how long a new key is published before it signs, so that every verifier has read it by then. It
	// must be longer than verifiers cache. Default 1 h. Negative disables it: a new key signs at once.
	PublishAhead time.Duration
	// VerifyFor is how long a key verifies after it last signed. It must be longer than tokens live. Default 24 h.
	VerifyFor time.Duration
	// RefreshEvery is how often the store is read again, to learn of keys that other replicas made. Default 1 min.
	RefreshEvery time.Duration
	// Logger logs rotations and failures of the store. Default slog.Default().
	Logger *slog.Logger
}

// storeTimeout bounds one read or write of the store that a request waits for.
const storeTimeout = 3 * time.Second

// KeySet signs tokens with the newest key that may sign, and verifies with all that may still verify. Replicas share it
// through their KeyStore. It owns no goroutine: the first call after RefreshEvery reads the store and rotates what is
// due; other calls do not wait for that.
type KeySet struct {
	store KeyStore // nil for a fixed secret
	cfg   KeyConfig
	keys  atomic.Pointer[readyKeys]
	due   atomic.Int64 // when the store is to be read next, Unix nanoseconds

	turn     chan struct{} // full while the store is read or written; guards what follows
	readErr  error         // of the last read of the store
	rereadAt time.Time     // when the last read for an unknown key id ended
}

// NewKeySet reads the keys of the store, and makes the first one where there is none.
func NewKeySet(store KeyStore, cfg KeyConfig) (*KeySet, error) {
	if store == nil {
		return nil, errors.New("authn: a KeySet needs a KeyStore")
	}
	cfg.RotateEvery = cmp.Or(cfg.RotateEvery, 30*24*time.Hour)
	cfg.PublishAhead = cmp.Or(cfg.PublishAhead, time.Hour)
	cfg.VerifyFor = cmp.Or(cfg.VerifyFor, 24*time.Hour)
	cfg.RefreshEvery = cmp.Or(cfg.RefreshEvery, time.Minute)
	cfg.Algorithm = cmp.Or(cfg.Algorithm, EdDSA)
	cfg.PublishAhead = max(cfg.PublishAhead, 0)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.VerifyFor < 0 || cfg.RefreshEvery < 0 || cfg.RotateEvery > 0 && cfg.PublishAhead >= cfg.RotateEvery {
		return nil, errors.New("authn: KeyConfig: VerifyFor and RefreshEvery must be positive, " +
			"PublishAhead shorter than RotateEvery")
	}
	if !slices.Contains([]Algorithm{EdDSA, ES256, RS256, HS256}, cfg.Algorithm) {
		return nil, fmt.Errorf("authn: KeyConfig: algorithm %q cannot be issued", cfg.Algorithm)
	}
	k := &KeySet{store: store, cfg: cfg, turn: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := k.sync(ctx, k.change); err != nil {
		return nil, err
	}
	return k, nil
}

// NewSecretKeySet returns a fixed set of shared secrets for HS256, without a kid, as services with a JWT_SECRET_KEY
// use them. The set signs with current and also verifies with previous, so that a secret can be replaced without
// refusing tokens that are still valid: deploy the new secret as previous everywhere, then exchange the two, then
// remove the old one. A secret shorter than 32 bytes is refused (ErrWeakKey).
func NewSecretKeySet(current []byte, previous ...[]byte) (*KeySet, error) {
	if len(previous) >= maxCandidates {
		return nil, fmt.Errorf("authn: a KeySet holds at most %d shared secrets", maxCandidates)
	}
	k := &KeySet{cfg: KeyConfig{Algorithm: HS256, VerifyFor: 1<<63 - 1}}
	var all []*ready
	for _, s := range append(slices.Clone(previous), current) { // the last one signs
		r, err := Key{Algorithm: HS256, Private: secret.New(slices.Clone(s))}.ready()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	k.keys.Store(newReadyKeys(all))
	return k, nil
}

// Keys implements KeySource. A key that is published but does not sign yet verifies already: the clock of another
// replica may be ahead. For an unknown id the store is read again, at most once a second, because another replica may
// have made the key just now.
func (k *KeySet) Keys(ctx context.Context, id string, alg Algorithm) ([]VerifyKey, error) {
	k.refresh(ctx)
	found, err := k.find(id, alg)
	if err == nil || id == "" || k.store == nil {
		return found, err
	}
	if err := k.reread(ctx); err != nil {
		return nil, unavailable("read the keys", err)
	}
	return k.find(id, alg)
}

func (k *KeySet) find(id string, alg Algorithm) ([]VerifyKey, error) {
	now := time.Now()
	set := k.keys.Load()
	found := FindKeys(set.public, id, alg)
	if len(found) == 1 && set.verifies(found[0].ID, now) { // without an allocation
		return found, nil
	}
	found = slices.DeleteFunc(slices.Clone(found), func(v VerifyKey) bool { return !set.verifies(v.ID, now) })
	if len(found) == 0 {
		return nil, ErrUnknownKey
	}
	return found, nil
}

// sign signs claims with the newest key that may sign. An empty typ means the default.
func (k *KeySet) sign(ctx context.Context, claims jwt.Claims, typ string) (string, error) {
	k.refresh(ctx)
	r := k.signing(time.Now())
	if r == nil {
		return "", unavailable("sign", errors.New("no key may sign"))
	}
	t := jwt.NewWithClaims(methods[r.Algorithm], claims)
	if r.ID != "" {
		t.Header["kid"] = r.ID
		t.Header["typ"] = cmp.Or(typ, "at+jwt")
	} else {
		t.Header["typ"] = cmp.Or(typ, "JWT") // verifiers with a shared secret often know no other
	}
	s, err := t.SignedString(r.signer)
	if err != nil {
		return "", fmt.Errorf("authn: sign a token: %w", err)
	}
	return s, nil
}

func (k *KeySet) signing(now time.Time) *ready {
	for _, r := range slices.Backward(k.keys.Load().all) {
		if !r.ActiveFrom.After(now) {
			return r
		}
	}
	return nil
}

// refresh lets one caller in each RefreshEvery read the store and rotate; the others use the keys that are known. When
// the store fails, the known keys remain in use.
func (k *KeySet) refresh(ctx context.Context) {
	if k.store == nil || !k.isDue() {
		return
	}
	select {
	case k.turn <- struct{}{}:
		defer k.release()
	default:
		return
	}
	if !k.isDue() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := k.syncLocked(ctx, k.planned); err != nil {
		k.cfg.Logger.ErrorContext(ctx, "signing keys could not be refreshed; the known ones remain in use", "error", err)
	}
}

// rereadEvery is how often an unknown key id has the store read.
const rereadEvery = time.Second

// reread reads the store, unless it did so less than rereadEvery ago: then it returns the error of the last read.
// Callers that come during a read wait for its result, and need none of their own.
func (k *KeySet) reread(ctx context.Context) error {
	if err := k.acquire(ctx); err != nil {
		return err
	}
	defer k.release()
	if age := time.Since(k.rereadAt); age >= 0 && age < rereadEvery {
		return k.readErr
	}
	defer func() { k.rereadAt = time.Now() }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return k.syncLocked(ctx, k.planned)
}

// acquire waits until no other call reads or writes the store, or ctx ends.
func (k *KeySet) acquire(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *KeySet) release() { <-k.turn }

// isDue reports whether the store is to be read. A time that is too far away means that the clock has been set back.
func (k *KeySet) isDue() bool {
	wait := k.due.Load() - time.Now().UnixNano()
	return wait <= 0 || wait > int64(k.cfg.RefreshEvery)
}

// Rotate makes a new key, as when RotateEvery has passed: it signs after PublishAhead.
func (k *KeySet) Rotate(ctx context.Context) error {
	return k.sync(ctx, func([]Key, time.Time) bool { return true })
}

// Remove takes a key away at once, for a key that has leaked: each replica refuses its tokens once it has read the
// store, within RefreshEvery. When it was the signing one and no other may sign, a new key signs at once.
func (k *KeySet) Remove(ctx context.Context, id string) error {
	if k.store == nil {
		return errors.New("authn: a fixed secret cannot be removed")
	}
	if err := k.acquire(ctx); err != nil {
		return err
	}
	defer k.release()
	return k.update(ctx, func(keys []Key, now time.Time) ([]Key, error) {
		rest := slices.DeleteFunc(slices.Clone(keys), func(x Key) bool { return x.ID == id })
		if len(rest) == len(keys) {
			return nil, ErrUnknownKey
		}
		if !slices.ContainsFunc(rest, func(x Key) bool { return !x.ActiveFrom.After(now) && x.ExpiresAt.IsZero() }) {
			fresh, err := GenerateKey(k.cfg.Algorithm, now)
			if err != nil {
				return nil, err
			}
			rest = append(rest, fresh)
		}
		return rest, nil
	})
}

// planned reports whether the next key must be made now so that it is published long enough.
func (k *KeySet) planned(keys []Key, now time.Time) bool {
	if k.cfg.RotateEvery < 0 {
		return false
	}
	newest := keys[len(keys)-1]
	return !now.Before(newest.ActiveFrom.Add(k.cfg.RotateEvery - k.cfg.PublishAhead))
}

// change is planned, and also when the algorithm has changed: only at the start, so that two releases that run side
// by side do not rotate against each other.
func (k *KeySet) change(keys []Key, now time.Time) bool {
	return keys[len(keys)-1].Algorithm != k.cfg.Algorithm || k.planned(keys, now)
}

func (k *KeySet) sync(ctx context.Context, rotate func([]Key, time.Time) bool) error {
	if k.store == nil {
		return errors.New("authn: a fixed secret does not rotate")
	}
	if err := k.acquire(ctx); err != nil {
		return err
	}
	defer k.release()
	return k.syncLocked(ctx, rotate)
}
