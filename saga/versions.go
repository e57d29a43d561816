package saga

import "fmt"

// adopt makes a saga of an older version one of d's. One of d's own version must have its shape.
func (d *definition) adopt(r *Record) error {
	if d == nil {
		return ErrUnknown
	}
	if r.Shape == d.shape && len(r.Steps) == len(d.nodes) {
		r.Version = d.version
		return nil
	}
	if r.Version == d.version {
		return ErrShape
	}
	steps := d.freshSteps()
	place := map[string]int{}
	for i, st := range steps {
		place[st.Name] = i
	}
	last, cursor := -1, -1
	for i, old := range r.Steps {
		at, ok := place[old.Name]
		begun := old.Status != StepNotStarted || i == r.Cursor
		switch {
		case !ok && begun:
			return fmt.Errorf("%w: version %d has no step %s", ErrShape, d.version, old.Name)
		case !ok:
			continue
		case begun && (at < last || len(old.Branches) != len(steps[at].Branches)):
			return fmt.Errorf("%w: version %d has step %s in another place or form", ErrShape, d.version, old.Name)
		case begun:
			for j, b := range old.Branches {
				if b.Name != steps[at].Branches[j].Name {
					return fmt.Errorf("%w: version %d has other branches in %s", ErrShape, d.version, old.Name)
				}
			}
			steps[at], last = old, at
		}
		if i == r.Cursor {
			cursor = at
		}
	}
	if cursor < 0 {
		return fmt.Errorf("%w: the saga stands at no step of version %d", ErrShape, d.version)
	}
	for i := range cursor { // added since, and behind it: not run, and nothing to undo
		if steps[i].Status == StepNotStarted {
			steps[i].Undone = true
		}
	}
	r.Version, r.Shape, r.Steps, r.Cursor = d.version, d.shape, steps, cursor
	return nil
}
