package authn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sillar-go/sillar/internal/secret"
)

// Set finds the key that verifies a token: a *KeySet in the process that issues, a jwks.Set elsewhere.
type Set interface {
	// Key returns the key of the given id; an empty id asks for the only key there is. It returns ErrUnknownKey when
	// there is none, and an error that matches ErrUnavailable when that cannot be told now.
	Key(ctx context.Context, id string) (VerifyKey, error)
}

// KeyConfig tunes a KeySet. The zero KeyConfig is useful.
type KeyConfig struct {
	// Algorithm of new keys. Default EdDSA. Verifiers in other languages may need ES256 or RS256.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. Default 30 days. Negative: keys change only by Rotate.
	RotateEvery time.Duration
	// PublishAhead is how long a new key is published before it signs, so that every verifier has read it by then. It
	// must be longer than verifiers cache. Default 1 h. Negative: it signs at once.
	PublishAhead time.Duration
	// VerifyFor is how long a key verifies after it last signed. It must be longer than tokens live. Default 24 h.
	VerifyFor time.Duration
	// RefreshEvery is how often the store is read again, to learn of keys that other replicas made. Default 1 min.
	RefreshEvery time.Duration
	// Logger is told of rotations and of a store that fails. Default slog.Default().
	Logger *slog.Logger
}

// storeTimeout bounds one conversation with the store that a request waits for.
const storeTimeout = 3 * time.Second

// KeySet signs tokens with the newest key that may sign, and verifies with all that may still verify. Replicas share
// it through their KeyStore. It owns no goroutine: whoever asks it for something after RefreshEvery reads the store
// and rotates what is due; nobody else waits for that.
type KeySet struct {
	store KeyStore // nil for a fixed secret
	cfg   KeyConfig
	keys  atomic.Pointer[[]*ready] // by ActiveFrom
	due   atomic.Int64             // when the store is to be read next, Unix nanoseconds
	mu    sync.Mutex               // held by whoever talks to the store
}

// NewKeySet reads the keys of the store, and makes the first one where there is none.
func NewKeySet(store KeyStore, cfg KeyConfig) (*KeySet, error) {
	if store == nil {
		return nil, errors.New("authn: a KeySet needs a KeyStore")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.RotateEvery, 30*24*time.Hour)
	def(&cfg.PublishAhead, time.Hour)
	def(&cfg.VerifyFor, 24*time.Hour)
	def(&cfg.RefreshEvery, time.Minute)
	cfg.PublishAhead = max(cfg.PublishAhead, 0)
	if cfg.Algorithm == "" {
		cfg.Algorithm = EdDSA
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.VerifyFor < 0 || cfg.RefreshEvery < 0 || cfg.RotateEvery > 0 && cfg.PublishAhead >= cfg.RotateEvery {
		return nil, errors.New("authn: KeyConfig: VerifyFor and RefreshEvery must be positive, PublishAhead shorter than RotateEvery")
	}
	if _, ok := methods[cfg.Algorithm]; !ok {
		return nil, fmt.Errorf("authn: KeyConfig: algorithm %q cannot be issued", cfg.Algorithm)
	}
	k := &KeySet{store: store, cfg: cfg}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := k.sync(ctx, k.change); err != nil {
		return nil, err
	}
	return k, nil
}

// NewSecretKeySet returns a fixed set of one shared secret, signing HS256 without a kid, as services with a
// JWT_SECRET_KEY do. A secret shorter than 32 bytes is refused (ErrWeakKey).
func NewSecretKeySet(sharedSecret []byte) (*KeySet, error) {
	r, err := Key{Algorithm: HS256, Private: secret.New(slices.Clone(sharedSecret))}.ready()
	if err != nil {
		return nil, err
	}
	k := &KeySet{cfg: KeyConfig{Algorithm: HS256, VerifyFor: 1<<63 - 1}}
	k.keys.Store(&[]*ready{r})
	return k, nil
}

// MustKeySet returns k or panics with err.
func MustKeySet(k *KeySet, err error) *KeySet {
	if err != nil {
		panic(err)
	}
	return k
}

// Key implements Set. A key that is published but does not sign yet verifies already: another replica's clock may be
// ahead.
func (k *KeySet) Key(ctx context.Context, id string) (VerifyKey, error) {
	k.refresh(ctx)
	now := time.Now()
	keys := *k.keys.Load()
	if id == "" && len(keys) != 1 {
		return VerifyKey{}, ErrUnknownKey
	}
	for _, r := range keys {
		if (r.ID == id || id == "") && (r.ExpiresAt.IsZero() || now.Before(r.ExpiresAt)) {
			return r.public, nil
		}
	}
	return VerifyKey{}, ErrUnknownKey
}

// sign signs claims with the newest key that may sign.
func (k *KeySet) sign(ctx context.Context, claims jwt.MapClaims) (string, error) {
	k.refresh(ctx)
	r := k.signing(time.Now())
	if r == nil {
		return "", unavailable("sign", errors.New("no key may sign"))
	}
	t := jwt.NewWithClaims(methods[r.Algorithm], claims)
	t.Header["typ"] = "at+jwt"
	if r.ID != "" {
		t.Header["kid"] = r.ID
	} else {
		t.Header["typ"] = "JWT" // a shared secret means verifiers of another kind
	}
	s, err := t.SignedString(r.signer)
	if err != nil {
		return "", fmt.Errorf("authn: sign a token: %w", err)
	}
	return s, nil
}

func (k *KeySet) signing(now time.Time) *ready {
	keys := *k.keys.Load()
	for _, r := range slices.Backward(keys) {
		if !r.ActiveFrom.After(now) {
			return r
		}
	}
	return nil
}

// refresh lets one caller per RefreshEvery read the store and rotate; the others go on with what is there. When the
// store fails, the keys of before serve on.
func (k *KeySet) refresh(ctx context.Context) {
	if k.store == nil || !k.isDue() || !k.mu.TryLock() {
		return
	}
	defer k.mu.Unlock()
	if !k.isDue() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := k.syncLocked(ctx, k.planned); err != nil {
		k.cfg.Logger.ErrorContext(ctx, "signing keys could not be refreshed, the known ones serve on", "error", err)
	}
}

// isDue says whether the store is to be read. A time that is too far away is that of a clock that has been set back.
func (k *KeySet) isDue() bool {
	wait := k.due.Load() - time.Now().UnixNano()
	return wait <= 0 || wait > int64(k.cfg.RefreshEvery)
}

// Rotate makes a new key, as when RotateEvery has passed: it signs after PublishAhead.
func (k *KeySet) Rotate(ctx context.Context) error {
	return k.sync(ctx, func([]Key, time.Time) bool { return true })
}

// Remove takes a key away at once, for a key that has leaked: its tokens are refused as soon as each replica has read
// the store, within RefreshEvery. When it was the signing one and no other may sign, a new key signs at once.
func (k *KeySet) Remove(ctx context.Context, id string) error {
	if k.store == nil {
		return errors.New("authn: a fixed secret cannot be removed")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
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
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.syncLocked(ctx, rotate)
}
