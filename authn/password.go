package authn

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"

	"github.com/sillar-go/sillar/internal/backoff"
)

// PasswordConfig tunes the hashing of passwords. The zero PasswordConfig follows the cheat sheet of OWASP: argon2id
// with 19 MiB, 2 passes and 1 lane.
type PasswordConfig struct {
	// MemoryKiB is the memory of one hash. Default 19456. More makes guessing slower, and each login too.
	MemoryKiB int
	// Passes is the number of passes over the memory. Default 2.
	Passes int
	// Lanes is the number of lanes of one hash. Default 1.
	Lanes int
	// MaxLength is the length of the longest password, in bytes of UTF-8 after normalisation. Longer ones are refused,
	// never cut: when hashing and when comparing. Default 1024, more than 250 characters of any script. 72, all that
	// bcrypt reads, keeps passwords usable in a system with bcrypt that the users may move to.
	MaxLength int
	// BcryptCost is the highest cost of the bcrypt hashes that are still stored. New then measures one such hash, so
	// that a failed login takes the same time for all users, unknown ones included, from the start. Default 0: the cost
	// of stored hashes is learnt as they are compared.
	BcryptCost int
	// Concurrency bounds the hashes that are computed at the same time; others wait until their context ends. Default one
	// for each core.
	Concurrency int
}

// The lengths of the argon2id hashes that are made here.
const (
	saltLen = 16
	sumLen  = 32
)

// maxBcrypt is the most that bcrypt reads of a password.
const maxBcrypt = 72

// Limits on what a stored hash may ask for: a row that another program wrote must not stop the process.
const (
	maxMemoryKiB  = 1 << 20
	maxPasses     = 64
	maxBcryptCost = 16
)

// Passwords hashes and compares passwords. It is safe for concurrent use.
//
// Passwords are compared in Unicode's form NFC, as RFC 8265 asks: it does not matter how a keyboard composes é. A hash
// of a password that was stored without normalisation still matches, and is replaced.
type Passwords struct {
	cfg     PasswordConfig
	slots   chan struct{}
	dummy   string
	slowest slowestForm
}

// slowestForm knows how long a comparison takes with the slowest form of hash that was seen.
type slowestForm struct {
	mu    sync.Mutex
	forms map[string]time.Duration // the shortest time of each form
	most  time.Duration            // of all forms
}

// maxForms bounds the forms that are remembered; a database has a handful.
const maxForms = 64

// saw notes the time of one comparison with a form. The shortest counts: a longer one had to wait for a processor.
func (s *slowestForm) saw(form string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if least, known := s.forms[form]; known && took >= least || !known && len(s.forms) >= maxForms {
		return
	}
	if s.forms == nil {
		s.forms = map[string]time.Duration{}
	}
	s.forms[form] = took
	s.most = slices.Max(slices.Collect(maps.Values(s.forms)))
}

// wait pauses until as much time has passed since start as the slowest form takes.
func (s *slowestForm) wait(ctx context.Context, start time.Time) {
	s.mu.Lock()
	most := s.most
	s.mu.Unlock()
	if rest := most - time.Since(start); rest > 0 {
		_ = backoff.Sleep(ctx, rest) // a caller that no longer waits sees no difference
	}
}

// NewPasswords returns a Passwords. It computes one hash, for users that do not exist.
func NewPasswords(cfg PasswordConfig) (*Passwords, error) {
	cfg.MemoryKiB = cmp.Or(cfg.MemoryKiB, 19456)
	cfg.Passes = cmp.Or(cfg.Passes, 2)
	cfg.Lanes = cmp.Or(cfg.Lanes, 1)
	cfg.MaxLength = cmp.Or(cfg.MaxLength, 1024)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, runtime.GOMAXPROCS(0))
	if cfg.Passes < 1 || cfg.Passes > maxPasses || cfg.Lanes < 1 || cfg.Lanes > 255 || cfg.MaxLength < 1 ||
		cfg.Concurrency < 1 ||
		cfg.MemoryKiB < 8*cfg.Lanes ||
		cfg.MemoryKiB > maxMemoryKiB ||
		cfg.BcryptCost < 0 ||
		cfg.BcryptCost > maxBcryptCost {
		return nil, errors.New("authn: PasswordConfig: a field is out of range")
	}
	p := &Passwords{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency)}
	start := time.Now()
	p.dummy = p.argon("")
	p.slowest.saw(form(p.dummy), time.Since(start))
	if cfg.BcryptCost > 0 {
		start = time.Now()
		hash, err := bcrypt.GenerateFromPassword(nil, cfg.BcryptCost)
		if err != nil {
			return nil, fmt.Errorf("authn: PasswordConfig: %w", err)
		}
		p.slowest.saw(form(string(hash)), time.Since(start))
	}
	return p, nil
}

// slot waits for the right to compute a hash.
func (p *Passwords) slot(ctx context.Context) (release func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Hash returns the argon2id hash of a password in PHC form. It returns ErrPasswordTooLong, or the context's error when
// it ends before there is room for another hash.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	password = norm.NFC.String(password)
	if len(password) > p.cfg.MaxLength {
		return "", ErrPasswordTooLong
	}
	release, err := p.slot(ctx)
	if err != nil {
		return "", fmt.Errorf("authn: hash a password: %w", err)
	}
	defer release()
	return p.argon(password), nil
}

func (p *Passwords) argon(password string) string {
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, uint32(p.cfg.Passes), uint32(p.cfg.MemoryKiB), uint8(p.cfg.Lanes), sumLen)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf(
		"$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.cfg.MemoryKiB, p.cfg.Passes, p.cfg.Lanes, b64(salt),
		b64(sum),
	)
}

// Verify compares a password with a stored hash, argon2id or bcrypt. It returns ErrPassword when they do not belong
// together. An empty hash stands for a user who does not exist, and gives ErrPassword. A failed comparison takes as
// long as one with the slowest form of hash that is stored, so that its time says nothing about the user. upgraded,
// when not empty, is a new hash that is to be stored in place of the old one, whose form or cost is not that of the
// config. With bcrypt, more than 72 bytes give ErrPasswordTooLong.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (upgraded string, err error) {
	normal := norm.NFC.String(password)
	if len(normal) > p.cfg.MaxLength || len(password) > 4*p.cfg.MaxLength {
		return "", ErrPasswordTooLong
	}
	start := time.Now()
	upgraded, err = p.verify(ctx, hash, normal)
	if errors.Is(err, ErrPassword) && normal != password { // hashed before passwords were normalised
		if _, err = p.verify(ctx, hash, password); err == nil {
			return p.Hash(ctx, normal)
		}
	}
	if errors.Is(err, ErrPassword) || errors.Is(err, ErrPasswordTooLong) {
		p.slowest.wait(ctx, start)
	}
	return upgraded, err
}

func (p *Passwords) verify(ctx context.Context, hash, password string) (upgraded string, err error) {
	release, err := p.slot(ctx)
	if err != nil {
		return "", fmt.Errorf("authn: compare a password: %w", err)
	}
	defer release()
	start := time.Now()
	var matches, current bool
	if strings.HasPrefix(hash, "$2") {
		matches, err = matchesBcrypt(hash, password)
	} else {
		matches, current, err = p.matchesArgon(cmp.Or(hash, p.dummy), password)
	}
	if err != nil {
		return "", err
	}
	if hash != "" {
		p.slowest.saw(form(hash), time.Since(start))
	}
	switch {
	case !matches || hash == "":
		return "", ErrPassword
	case current:
		return "", nil
	}
	return p.argon(password), nil
}

// form is what decides how long a comparison takes: a hash without its salt and sum.
func form(hash string) string {
	if i := strings.LastIndexByte(hash, '$'); strings.HasPrefix(hash, "$2") && i >= 0 {
		return hash[:i]
	}
	parts := strings.Split(hash, "$")
	return strings.Join(parts[:min(len(parts), 4)], "$")
}

// matchesArgon reports whether a password has the hash, and whether the hash has the parameters of the config.
func (p *Passwords) matchesArgon(hash, password string) (matches, current bool, err error) {
	h, err := parseArgon(hash)
	if err != nil {
		return false, false, err
	}
	sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
	current = int(h.memory) == p.cfg.MemoryKiB && int(h.passes) == p.cfg.Passes && int(h.lanes) == p.cfg.Lanes &&
		len(h.sum) == sumLen
	return subtle.ConstantTimeCompare(sum, h.sum) == 1, current, nil
}

func matchesBcrypt(hash, password string) (bool, error) {
	if len(password) > maxBcrypt {
		return false, ErrPasswordTooLong
	}
	if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > maxBcryptCost {
		return false, ErrHash
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, ErrHash
	}
	return err == nil, nil
}

type argonHash struct {
	memory, passes uint32
	lanes          uint8
	salt, sum      []byte
}

// parseArgon reads $argon2id$v=19$m=19456,t=2,p=1$salt$sum.
func parseArgon(s string) (h argonHash, err error) {
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, ErrHash
	}
	params := strings.Split(part[3], ",")
	if len(params) != 3 {
		return h, ErrHash
	}
	number := func(s, name string, limit uint64) uint64 {
		digits, ok := strings.CutPrefix(s, name+"=")
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || n > limit {
			return 0
		}
		return n
	}
	h.memory = uint32(number(params[0], "m", maxMemoryKiB))
	h.passes = uint32(number(params[1], "t", maxPasses))
	h.lanes = uint8(number(params[2], "p", 255))
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(part[4])
	h.sum, err2 = base64.RawStdEncoding.Strict().DecodeString(part[5])
	if err1 != nil || err2 != nil || h.memory == 0 || h.passes == 0 || h.lanes == 0 || len(h.salt) < 8 ||
		len(h.salt) > 64 ||
		len(h.sum) < 16 ||
		len(h.sum) > 64 {
		return h, ErrHash
	}
	return h, nil
}
