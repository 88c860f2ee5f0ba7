package sad

// What a replacement of SAs needs beyond Install and Remove, which know SAs by
// their names: a new SA may come under the name of one that is gone.

// Find is the installed SA with this ID, or nil. It locks: not for the packet
// path.
func (d *Database) Find(id ID) *SA {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ids[id]
}

// Retire removes these very SAs, as Remove does, and returns how many were
// there. One that has another SA under its name by now is gone already.
func (d *Database) Retire(sas ...*SA) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.take(sas)
}
