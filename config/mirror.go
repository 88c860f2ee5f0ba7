package config

// Difference is a field in which two ends of a tunnel do not mirror each
// other.
type Difference struct {
	Key  string   // key path in the first file
	A, B Position // where each file says its part
	Text string   // what each end says, and what would match; never a key
}

// String is the difference on one line.
func (d Difference) String() string {
	return d.A.String() + ": " + d.Key + ": " + d.Text + " (" + d.B.String() + ")"
}
