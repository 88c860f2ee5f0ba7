package bench

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// cycleCounter counts the CPU cycles that this process spends in user mode, on
// all its threads (perf_event_open(2)).
type cycleCounter struct{ fds []int }

// newCycleCounter fails where the kernel or the machine has no such counter:
// virtual machines often lack it. Threads that exist now are counted, and those
// that they start.
func newCycleCounter() (*cycleCounter, error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	c := &cycleCounter{}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES, Size: unix.PERF_ATTR_SIZE_VER5,
		Bits: unix.PerfBitInherit | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			c.close()
			return nil, err
		}
		c.fds = append(c.fds, fd)
	}
	return c, nil
}

// read is the number of cycles so far.
func (c *cycleCounter) read() (total uint64, err error) {
	var b [8]byte
	for _, fd := range c.fds {
		n, err := unix.Read(fd, b[:])
		if err != nil {
			return 0, err
		}
		if n != len(b) {
			return 0, errors.New("bench: perf_event: short read")
		}
		total += binary.NativeEndian.Uint64(b[:])
	}
	return total, nil
}

func (c *cycleCounter) close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
}
