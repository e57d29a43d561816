package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sillar-go/sillar/internal/backoff"
	"github.com/sillar-go/sillar/internal/correlation"
)

// Config tunes an Orchestrator. The zero Config is useful.
type Config struct {
	// Name tells orchestrators apart in the store; a unique suffix is added. Default "orchestrator".
	Name string
	// Concurrency bounds the sagas that run at once. Default 64.
	Concurrency int
	// Lease is how long the orchestrator owns its sagas without a heartbeat. Default 15 s. After a crash others take
	// over within Lease plus Poll. A shorter lease takes over sooner and is lost during shorter pauses.
	Lease time.Duration
	// Poll is how often the store is asked for sagas that are due. Default 1 s.
	Poll time.Duration
	// ParkAfter is the shortest pause for which a saga releases its worker slot and waits in the store. Default 1 s.
	ParkAfter time.Duration
	// StoreTimeout bounds each call to the store. A call that fails is logged and made again. Default a third of Lease,
	// at most 5 s: longer than a slow write takes, shorter than what makes a node lose its lease.
	StoreTimeout time.Duration
	// MaxTakeovers bounds how often a step, or its compensation, is tried again after the process that ran it has died
	// or has lost its lease. These attempts are not counted as those of Retry and CompensateRetry. Default 5.
	MaxTakeovers int
	// DrainTimeout bounds how long running handlers may go on after Run's context ends. Default 20 s. Negative disables
	// it.
	DrainTimeout time.Duration
	// ObserveInterval is how often the store is asked how many sagas run, compensate and are stuck, for the metrics.
	// Default 30 s. Negative disables these metrics.
	ObserveInterval time.Duration
	// Logger gets failures, stuck sagas as errors, and starts and ends. Default slog.Default.
	Logger *slog.Logger
	// TracerProvider, MeterProvider and Propagator carry traces and correlation ids. Nil means the global providers,
	// and W3C trace context with the correlation id.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	Propagator     propagation.TextMapPropagator
	// OnChange is called after each write of a saga, on the goroutine that runs the saga: a slow function makes sagas
	// slow. A panic is logged. r is a copy.
	OnChange func(ctx context.Context, r Record)
}

// Orchestrator runs sagas. Several may share a store.
type Orchestrator struct {
	store Store
	cfg   Config
	defs  map[Kind]*definition
	kinds []Kind
	tel   *telemetry

	gauges    gauges
	listening listening
	groups    []group // of kinds, by Claim
	wakes     chan struct{}
	slots     chan struct{}

	mu       sync.Mutex
	self     *identity // nil while there is no lease, and when Run ends
	retired  map[*identity]struct{}
	running  bool
	atWork   map[*definition]int // sagas that run here
	busy     sync.WaitGroup
	waiting  map[string]map[chan Record]struct{} // by saga, the callers that wait for its end
	stopPoll context.CancelFunc                  // ends poll; nil while no caller waits
	here     map[string]struct{}                 // sagas at work in this process
	last     *recent
}

// New returns an orchestrator of the definitions. An invalid one is ErrDefinition.
func New(store Store, cfg Config, defs ...Definition) (*Orchestrator, error) {
	if store == nil || len(defs) == 0 {
		return nil, fmt.Errorf("%w: New needs a store and definitions", ErrDefinition)
	}
	cfg.Lease = cmp.Or(cfg.Lease, 15*time.Second)
	cfg.Poll = cmp.Or(cfg.Poll, time.Second)
	cfg.ParkAfter = cmp.Or(cfg.ParkAfter, time.Second)
	cfg.DrainTimeout = cmp.Or(cfg.DrainTimeout, 20*time.Second)
	cfg.StoreTimeout = cmp.Or(cfg.StoreTimeout, min(cfg.Lease/3, 5*time.Second))
	cfg.ObserveInterval = cmp.Or(cfg.ObserveInterval, 30*time.Second)
	cfg.MaxTakeovers = cmp.Or(cfg.MaxTakeovers, 5)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 64)
	cfg.Name = cmp.Or(cfg.Name, "orchestrator")
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Lease < 0 || cfg.Poll < 0 || cfg.Concurrency < 0 || cfg.StoreTimeout < 0 || cfg.MaxTakeovers < 0 {
		return nil, fmt.Errorf(
			"%w: Lease, Poll, Concurrency, StoreTimeout and MaxTakeovers cannot be negative",
			ErrDefinition,
		)
	}
	cfg.Propagator = cmp.Or(cfg.Propagator, correlation.DefaultPropagator())
	tel, err := newTelemetry(cfg)
	if err != nil {
		return nil, err
	}
	o := &Orchestrator{
		store:   boundedStore{store, cfg.StoreTimeout},
		cfg:     cfg,
		defs:    map[Kind]*definition{},
		tel:     tel,
		wakes:   make(chan struct{}, 1),
		slots:   make(chan struct{}, cfg.Concurrency),
		waiting: map[string]map[chan Record]struct{}{},
		here:    map[string]struct{}{},
		retired: map[*identity]struct{}{},
		atWork:  map[*definition]int{},
		last:    newRecent(1024),
	}
	o.listening.from, _ = store.(Listener)
	for _, d := range defs {
		def := d.definition()
		if def.err != nil {
			return nil, def.err
		}
		k := Kind{def.name, def.version}
		if o.defs[k] != nil {
			return nil, fmt.Errorf("%w: %s version %d is registered twice", ErrDefinition, def.name, def.version)
		}
		o.defs[k] = def
		o.kinds = append(o.kinds, k)
	}
	for _, d := range defs {
		for _, v := range d.definition().resumes {
			k := Kind{d.Name(), v}
			if o.defs[k] != nil || v >= d.Version() {
				return nil, fmt.Errorf(
					"%w: %s version %d cannot resume from version %d: it is registered, or not older", ErrDefinition, d.Name(),
					d.Version(), v,
				)
			}
			o.defs[k] = d.definition()
			o.kinds = append(o.kinds, k)
		}
	}
	o.groupKinds()
	return o, nil
}

// Must returns v or panics with err.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Run runs sagas until ctx ends; then it lets running handlers finish, gives its sagas back and returns nil, or
// ErrDraining when handlers ignore that their context has ended. It returns ErrShape when the store holds unfinished
// sagas of a registered version with other steps. Store failures are logged and waited out. It runs once.
func (o *Orchestrator) Run(ctx context.Context) error {
	o.mu.Lock()
	if o.running {
		o.mu.Unlock()
		return errors.New("saga: the orchestrator has already run")
	}
	o.running = true
	o.mu.Unlock()
	for {
		err := o.checkShapes(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrShape) {
			return err
		}
		o.cfg.Logger.ErrorContext(ctx, "saga: the store does not answer, no saga runs here", "error", err)
		_ = backoff.Sleep(ctx, o.cfg.Poll)
	}
	var background sync.WaitGroup
	background.Go(func() { o.heartbeat(ctx) })
	if o.cfg.ObserveInterval > 0 {
		unregister, err := o.export()
		if err != nil {
			return fmt.Errorf("saga: register the metrics: %w", err)
		}
		defer func() { _ = unregister() }() // it has nothing to say
		background.Go(func() { o.observe(ctx) })
	}

	ticker := time.NewTicker(o.cfg.Poll)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if o.claim(ctx) { // more may be due: look again as soon as a place is free
			select {
			case o.slots <- struct{}{}:
				<-o.slots
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-o.wakes:
		}
	}
	background.Wait()
	return o.drain()
}

func (o *Orchestrator) checkShapes(ctx context.Context) error {
	for k, d := range o.defs {
		if k.Version != d.version {
			continue // one that it resumes from
		}
		shapes, err := o.store.Shapes(ctx, k)
		if err != nil {
			return fmt.Errorf("saga: look for unfinished sagas: %w", err)
		}
		for _, s := range shapes {
			if s != d.shape {
				return fmt.Errorf("%w: %s version %d: give the changed definition a new version", ErrShape, k.Name, k.Version)
			}
		}
	}
	return nil
}

// run drives a saga in a slot.
func (o *Orchestrator) run(s slot, c Claimed) {
	defer o.leave(s)
	defer o.unmark(c.ID)
	if !newRunner(o, c.Record).drive(s.self.life, s.self.stop.Done(), c.TakenOver) {
		s.self.unsure.Store(true)
	}
}

// wake makes Run look for work now.
func (o *Orchestrator) wake() {
	select {
	case o.wakes <- struct{}{}:
	default:
	}
}

// claim takes what is due, as far as there are slots, and reports whether there may be more.
func (o *Orchestrator) claim(ctx context.Context) (more bool) {
	self, places := o.enter(o.cfg.Concurrency)
	if places == 0 {
		return len(o.slots) == cap(o.slots)
	}
	defer func() {
		for range places {
			o.release(self)
		}
	}()
	for _, g := range o.groups {
		n := places
		if g.def != nil {
			n = o.reserve(g.def, places)
		}
		if n == 0 {
			continue
		}
		claimed, err := o.store.Claim(ctx, self.node, g.kinds, n)
		if err != nil && ctx.Err() == nil {
			o.cfg.Logger.ErrorContext(ctx, "saga: claiming failed", "error", err)
			self.unsure.Store(true) // it may have been done
		}
		for _, c := range claimed {
			def := o.defs[Kind{c.Name, c.Version}]
			if g.def == nil {
				o.reserve(def, 1)
			}
			places--
			go o.run(slot{self, def}, c)
		}
		if g.def != nil {
			o.unreserve(g.def, n-len(claimed))
		}
		more = more || len(claimed) == n
	}
	return more
}

// group is what one call of Claim asks for: the kinds of all definitions without a limit of their own, whose def is
// nil, or those of one with a limit.
type group struct {
	def   *definition
	kinds []Kind
}

func (o *Orchestrator) groupKinds() {
	var rest group
	limited := map[*definition]int{}
	for _, k := range o.kinds {
		def := o.defs[k]
		if def.atOnce == 0 {
			rest.kinds = append(rest.kinds, k)
			continue
		}
		i, known := limited[def]
		if !known {
			i = len(o.groups)
			limited[def] = i
			o.groups = append(o.groups, group{def: def})
		}
		o.groups[i].kinds = append(o.groups[i].kinds, k)
	}
	if len(rest.kinds) > 0 {
		o.groups = append(o.groups, rest)
	}
}

// drain waits for running handlers under a lease that is kept alive, and ends the lease.
func (o *Orchestrator) drain() error {
	o.mu.Lock()
	self := o.self
	o.self = nil
	o.mu.Unlock()
	ctx := context.Background()
	done := make(chan struct{})
	go func() { o.busy.Wait(); close(done) }()
	if err := o.waitForHandlers(ctx, self, done); err != nil || self == nil {
		return err
	}
	self.yield()
	self.kill(ErrDraining)
	o.leaveStore(ctx, self)
	return nil
}

// waitForHandlers waits until done is closed. It keeps the lease of self alive; after DrainTimeout it ends the contexts
// of handlers, and 10 s later it returns ErrDraining.
func (o *Orchestrator) waitForHandlers(ctx context.Context, self *identity, done <-chan struct{}) error {
	ticker := time.NewTicker(o.cfg.Lease / 4)
	defer ticker.Stop()
	soft := time.After(max(o.cfg.DrainTimeout, 0))
	hard := time.After(max(o.cfg.DrainTimeout, 0) + 10*time.Second)
	for {
		select {
		case <-done:
			return nil
		case <-ticker.C:
			if self != nil {
				o.prolong(ctx, self)
			}
		case <-soft:
			o.mu.Lock()
			for r := range o.retired {
				r.kill(ErrDraining)
			}
			o.mu.Unlock()
			if self != nil {
				self.kill(ErrDraining)
			}
		case <-hard:
			return fmt.Errorf("%w: handlers ignore that their context has ended", ErrDraining)
		}
	}
}

// Get returns a saga as it is stored, or ErrNotFound.
func (o *Orchestrator) Get(ctx context.Context, id string) (Record, error) {
	return o.store.Get(ctx, id)
}

// List returns sagas in the order of their start.
func (o *Orchestrator) List(ctx context.Context, f Filter) ([]Record, error) {
	if len(f.IDs) > MaxFilterIDs {
		return nil, fmt.Errorf("saga: list: %d ids: want at most %d", len(f.IDs), MaxFilterIDs)
	}
	return o.store.List(ctx, f)
}

// Count counts the sagas that f selects, up to f.Limit: a result of f.Limit means as many or more.
func (o *Orchestrator) Count(ctx context.Context, f Filter) (int, error) {
	if len(f.IDs) > MaxFilterIDs {
		return 0, fmt.Errorf("saga: count: %d ids: want at most %d", len(f.IDs), MaxFilterIDs)
	}
	return o.store.Count(ctx, f)
}

// errStop ends the drive of a saga that the orchestrator has given back.
var errStop = errors.New("saga: stop")
