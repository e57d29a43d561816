package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxSaves bounds how often a change is tried against other replicas.
const maxSaves = 10

// syncLocked reads the keys and makes a new one if there is none or if rotate says so.
func (k *KeySet) syncLocked(ctx context.Context, rotate func([]Key, time.Time) bool) error {
	return k.update(ctx, func(keys []Key, now time.Time) ([]Key, error) {
		if len(keys) == 0 {
			first, err := GenerateKey(k.cfg.Algorithm, now)
			return []Key{first}, err
		}
		if !rotate(keys, now) {
			return nil, nil
		}
		next, err := GenerateKey(k.cfg.Algorithm, now.Add(k.cfg.PublishAhead))
		if err != nil {
			return nil, err
		}
		out := make([]Key, 0, len(keys)+1)
		for _, key := range keys {
			if key.ExpiresAt.IsZero() {
				key.ExpiresAt = next.ActiveFrom.Add(k.cfg.VerifyFor).UTC()
			}
			if now.Before(key.ExpiresAt) {
				out = append(out, key)
			}
		}
		return append(out, next), nil
	})
}

// update reads the store, lets fn derive the next keys (nil: no change) and saves them against the version that was
// read. Then the set uses what the store holds. The caller has acquired k.
func (k *KeySet) update(ctx context.Context, fn func([]Key, time.Time) ([]Key, error)) error {
	now := time.Now()
	// The next read is due after RefreshEvery also when this one fails: a store that is down slows one request an
	// interval.
	k.due.Store(now.Add(k.cfg.RefreshEvery).UnixNano())
	for range maxSaves {
		keys, version, err := k.store.Load(ctx)
		k.readErr = err
		if err != nil {
			return fmt.Errorf("authn: load keys: %w", err)
		}
		byTime(keys)
		next, err := fn(keys, now)
		if err != nil {
			return err
		}
		if next == nil {
			return k.use(keys)
		}
		byTime(next)
		if err := k.usable(next); err != nil {
			return err
		}
		err = k.store.Save(ctx, next, version)
		if errors.Is(err, ErrKeyConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("authn: save keys: %w", err)
		}
		newest := next[len(next)-1]
		k.cfg.Logger.InfoContext(ctx, "signing keys changed",
			"kid", newest.ID, "algorithm", newest.Algorithm, "signs_from", newest.ActiveFrom)
		return k.use(next)
	}
	return fmt.Errorf("authn: save keys: %w", ErrKeyConflict)
}

func byTime(keys []Key) {
	slices.SortStableFunc(keys, func(a, b Key) int { return a.ActiveFrom.Compare(b.ActiveFrom) })
}

func (k *KeySet) usable(keys []Key) error {
	_, err := k.prepare(keys)
	return err
}

// use makes keys the working ones. Keys that are known already are not parsed again.
func (k *KeySet) use(keys []Key) error {
	all, err := k.prepare(keys)
	if err != nil {
		return err
	}
	k.keys.Store(newReadyKeys(all))
	return nil
}

func (k *KeySet) prepare(keys []Key) ([]*ready, error) {
	var known []*ready
	if p := k.keys.Load(); p != nil {
		known = p.all
	}
	all := make([]*ready, 0, len(keys))
	for _, key := range keys {
		if i := slices.IndexFunc(known, func(r *ready) bool {
			return r.ID == key.ID && r.Algorithm == key.Algorithm &&
				r.ExpiresAt.Equal(key.ExpiresAt) && r.ActiveFrom.Equal(key.ActiveFrom)
		}); i >= 0 {
			all = append(all, known[i])
			continue
		}
		r, err := key.ready()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
