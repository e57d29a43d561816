// Package faultdraw draws faults for tests: the same ones for a seed, a place and the number of times that a program
// has come to the place, whatever happens elsewhere at the same time.
package faultdraw

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"sync"
)

// ErrInjected is every injected error.
var ErrInjected = errors.New("injected fault")

// Draw draws faults. It is safe for concurrent use.
type Draw struct {
	seed  uint64
	rate  float64
	mu    sync.Mutex
	times map[string]uint64
}

// New returns a Draw in which a part rate of the times has a fault.
func New(seed uint64, rate float64) *Draw {
	return &Draw{seed: seed, rate: rate, times: map[string]uint64{}}
}

// Fault is what happens at a place.
type Fault int

// The faults: the operation fails before its effect, or after it.
const (
	None Fault = iota
	Before
	After
)

// At draws for a place, such as the name of a method. Half of the faults come before the effect, half after it.
func (d *Draw) At(place string) Fault {
	switch p := d.Part(place); {
	case p < d.rate/2:
		return Before
	case p < d.rate:
		return After
	}
	return None
}

// Part draws a number of at least 0 and less than 1 for a place, evenly.
func (d *Draw) Part(place string) float64 {
	d.mu.Lock()
	n := d.times[place]
	d.times[place]++
	d.mu.Unlock()
	h := fnv.New64a()
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], d.seed)
	binary.BigEndian.PutUint64(b[8:], n)
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(place))
	x := h.Sum64()
	x ^= x >> 33 // the finalizer of MurmurHash3: FNV alone mixes the low bits little
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// Do runs an operation under the fault that is drawn for the place.
func (d *Draw) Do(place string, run func() error) error {
	switch d.At(place) {
	case Before:
		return ErrInjected
	case After:
		if err := run(); err != nil {
			return err
		}
		return ErrInjected
	}
	return run()
}
