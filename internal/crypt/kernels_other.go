//go:build !amd64

package crypt

import "math"

// wideMin: no length is long enough for a kernel that is not there.
const wideMin = math.MaxInt

// Kernels lists what can run here.
func Kernels() []Kernel { return []Kernel{Plain} }

func sumWide(Kernel, []byte) uint64 { panic("crypt: this machine has the plain kernel only") }

func copyWide(Kernel, []byte, []byte) uint64 { panic("crypt: this machine has the plain kernel only") }
