package saga

// slot is a place of Concurrency in which a saga of a definition runs, under an identity.
type slot struct {
	self *identity
	def  *definition
}

// enter takes up to n slots under the present identity and returns how many it got. Each is given a definition by
// reserve, or is released by release.
func (o *Orchestrator) enter(n int) (self *identity, places int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.self == nil || o.self.stop.Err() != nil || !o.self.alive(o.cfg.Lease) {
		return nil, 0
	}
	for ; places < n; places++ {
		select {
		case o.slots <- struct{}{}:
			o.busy.Add(1)
			o.self.places++
		default:
			return o.self, places
		}
	}
	return o.self, places
}

// enterOne takes a slot for a saga of a definition, or returns nil.
func (o *Orchestrator) enterOne(def *definition) *slot {
	self, places := o.enter(1)
	if places == 0 {
		return nil
	}
	if o.reserve(def, 1) == 0 {
		o.release(self)
		return nil
	}
	return &slot{self, def}
}

// reserve takes up to n places of the definition's own Concurrency and returns how many it got.
func (o *Orchestrator) reserve(def *definition, n int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if def.atOnce > 0 {
		n = max(0, min(n, def.atOnce-o.atWork[def]))
	}
	o.atWork[def] += n
	return n
}

// unreserve gives places of the definition's own Concurrency back, and reports whether all of them were taken.
func (o *Orchestrator) unreserve(def *definition, n int) (full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	full = def.atOnce > 0 && o.atWork[def] >= def.atOnce
	o.atWork[def] -= n
	return full
}

func (o *Orchestrator) leave(s slot) {
	if o.unreserve(s.def, 1) {
		o.wake() // others of the definition may be due
	}
	o.release(s.self)
}

// release gives a slot back.
func (o *Orchestrator) release(self *identity) {
	o.mu.Lock()
	if self.places--; self.places == 0 {
		if self.life.Err() != nil { // nothing begins under it any more
			self.yield()
		}
		select {
		case self.idle <- struct{}{}:
		default:
		}
	}
	o.mu.Unlock()
	<-o.slots
	o.busy.Done()
}
