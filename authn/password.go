package authn

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// PasswordConfig says how passwords are hashed. The zero PasswordConfig follows OWASP's cheat sheet: argon2id with
// 19 MiB, 2 passes, 1 lane.
type PasswordConfig struct {
	// MemoryKiB is what one hash needs. Default 19456. More resists longer, and each login pays it.
	MemoryKiB int
	// Passes over the memory. Default 2.
	Passes int
	// Lanes of one hash. Default 1.
	Lanes int
	// MaxLength is the longest password, in bytes. Longer ones are refused, never cut: when hashing and when comparing.
	// Default 72, all that bcrypt reads, so that a password fits whatever its hash is made with, today or in a system
	// that the users move to. Where there is nothing but argon2id, more lets long passphrases in; each byte is hashed.
	MaxLength int
	// Concurrency bounds the hashes at work at once; others wait, as long as their context lets them. Default one a
	// core, so that logins take at most the machine's processors and MemoryKiB each.
	Concurrency int
}

// The lengths of argon2id hashes here.
const (
	saltLen = 16
	sumLen  = 32
)

// maxBcrypt is the most that bcrypt reads of a password.
const maxBcrypt = 72

// Limits on what a stored hash may ask for: a row that somebody else wrote must not stop the process.
const (
	maxMemoryKiB  = 1 << 20
	maxPasses     = 64
	maxBcryptCost = 16
)

// Passwords hashes and compares passwords.
type Passwords struct {
	cfg   PasswordConfig
	slots chan struct{}
	dummy string
}

// NewPasswords returns a Passwords. It computes one hash, for users that do not exist.
func NewPasswords(cfg PasswordConfig) (*Passwords, error) {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&cfg.MemoryKiB, 19456)
	def(&cfg.Passes, 2)
	def(&cfg.Lanes, 1)
	def(&cfg.MaxLength, maxBcrypt)
	def(&cfg.Concurrency, runtime.GOMAXPROCS(0))
	if cfg.Passes < 1 || cfg.Passes > maxPasses || cfg.Lanes < 1 || cfg.Lanes > 255 || cfg.MaxLength < 1 || cfg.Concurrency < 1 ||
		cfg.MemoryKiB < 8*cfg.Lanes || cfg.MemoryKiB > maxMemoryKiB {
		return nil, errors.New("authn: PasswordConfig: a field is out of range")
	}
	p := &Passwords{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency)}
	p.dummy = p.argon("")
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
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.cfg.MemoryKiB, p.cfg.Passes, p.cfg.Lanes, b64(salt), b64(sum))
}

// Verify compares a password with a stored hash, argon2id or bcrypt. It returns ErrPassword when they do not belong
// together. An empty hash is that of a user who does not exist: it takes the time of a real one and gives ErrPassword.
// upgraded, when not empty, is a new hash that is to be stored in place of the old one, whose form or cost is not that
// of the config. With bcrypt, more than 72 bytes give ErrPasswordTooLong.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (upgraded string, err error) {
	if len(password) > p.cfg.MaxLength {
		return "", ErrPasswordTooLong
	}
	release, err := p.slot(ctx)
	if err != nil {
		return "", fmt.Errorf("authn: compare a password: %w", err)
	}
	defer release()
	if strings.HasPrefix(hash, "$2") {
		return p.verifyBcrypt(hash, password)
	}
	exists := hash != ""
	if !exists {
		hash = p.dummy
	}
	h, err := parseArgon(hash)
	if err != nil {
		return "", err
	}
	sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum)))
	if subtle.ConstantTimeCompare(sum, h.sum) != 1 || !exists {
		return "", ErrPassword
	}
	if int(h.memory) != p.cfg.MemoryKiB || int(h.passes) != p.cfg.Passes || int(h.lanes) != p.cfg.Lanes || len(h.sum) != sumLen {
		return p.argon(password), nil
	}
	return "", nil
}

func (p *Passwords) verifyBcrypt(hash, password string) (string, error) {
	if len(password) > maxBcrypt {
		_ = p.argon(password) // as long as it takes for a user who does not exist
		return "", ErrPasswordTooLong
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || cost > maxBcryptCost {
		return "", ErrHash
	}
	err = bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	switch {
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return "", ErrPassword
	case err != nil:
		return "", ErrHash
	}
	return p.argon(password), nil
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
	if err1 != nil || err2 != nil || h.memory == 0 || h.passes == 0 || h.lanes == 0 || len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 {
		return h, ErrHash
	}
	return h, nil
}
