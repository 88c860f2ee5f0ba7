package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Applied is a plan that is in force on the host.
type Applied struct {
	nl     *netlink.Handle // its socket stays in the namespace Apply was called in
	device string
	index  int // the device's
	table  uint32
	v6     ipv6Mode
	was    deviceState

	mu    sync.Mutex // guards what follows
	plan  Plan
	addrs []netip.Prefix // that this package added
	notes []string
	gone  bool
}

// deviceState is what Remove gives back to the device.
type deviceState struct {
	mtu     int
	up      bool
	genMode int // IPv6 address generation; -1: leave it
}

// genModeNone keeps the kernel from making a link-local address on the TUN, and
// so from sending router solicitations into it (IN6_ADDR_GEN_MODE_NONE).
const genModeNone = 1

// Apply brings the plan about in the network namespace of the calling thread,
// or changes nothing and says why: whatever was done before an error is undone.
// What an earlier gateway of the same device left behind is taken over.
//
// Where the device is in force already, by another Applied, rules and routes
// are the new plan's from then on. To change a plan, use Update.
func Apply(p Plan) (*Applied, error) {
	p, err := p.withDefaults()
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("hostnet: netlink: %w", err)
	}
	a := &Applied{nl: nl, device: p.Device, table: p.Table, v6: ipv6Of(p.Device)}
	if err := a.inspect(); err != nil {
		nl.Close()
		return nil, err
	}
	if err := a.change(p); err != nil {
		nl.Close()
		return nil, err
	}
	a.notes = append(a.v6.notes(p), a.reversePathNotes(p)...)
	return a, nil
}

// inspect finds the device and notes the state that Remove returns it to.
func (a *Applied) inspect() error {
	link, err := a.nl.LinkByName(a.device)
	if err != nil {
		return fmt.Errorf("hostnet: device %s: %w", a.device, err)
	}
	a.index = link.Attrs().Index
	a.was = deviceState{
		mtu:     link.Attrs().MTU,
		up:      link.Attrs().Flags&net.FlagUp != 0,
		genMode: genMode(a.device),
	}
	return nil
}

// Update changes the plan in force, or nothing. Device, table, mark and
// priority keep their values where the new plan has none; the device cannot
// change. Traffic that both plans protect never leaves in clear meanwhile.
func (a *Applied) Update(p Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return errors.New("hostnet: the plan has been removed")
	}
	if p.Device == "" {
		p.Device = a.plan.Device
	}
	if p.Device != a.plan.Device {
		return fmt.Errorf("hostnet: device %s cannot become %s: remove the plan and apply a new one", a.plan.Device, p.Device)
	}
	if p.Mark == 0 {
		p.Mark = a.plan.Mark
	}
	if p.Table == 0 {
		p.Table = a.plan.Table
	}
	if p.Priority == 0 {
		p.Priority = a.plan.Priority
	}
	p, err := p.withDefaults()
	if err != nil {
		return err
	}
	if p.Table != a.plan.Table {
		return fmt.Errorf("hostnet: routing table %d cannot become %d: remove the plan and apply a new one", a.plan.Table, p.Table)
	}
	return a.change(p)
}

// Plan is the plan in force, with defaults filled in.
func (a *Applied) Plan() Plan {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.plan
}

// Notes tells the operator what the host lacked for the plan when Apply was
// called, if anything.
func (a *Applied) Notes() []string { return append([]string(nil), a.notes...) }

// journal undoes steps, last first.
type journal []func() error

// impair is a test's: it lets a plan fail behind its n-th step.
var impair func(step int) error

// done notes how a step that was taken is undone. The error is impair's.
func (j *journal) done(undo func() error) error {
	*j = append(*j, undo)
	if impair != nil {
		return impair(len(*j))
	}
	return nil
}

func (j *journal) undo() error {
	var errs []error
	for i := len(*j) - 1; i >= 0; i-- {
		errs = append(errs, (*j)[i]())
	}
	*j = nil
	return errors.Join(errs...)
}

// change goes from the state that the host is in to the plan's. The order keeps
// protected traffic from leaving in clear at every step: first the device, then
// what the table gains, then the rules that lead into it, and last what neither
// has a use for.
func (a *Applied) change(p Plan) (err error) {
	var j journal
	defer func() {
		if err != nil {
			if e := j.undo(); e != nil {
				err = fmt.Errorf("%w; and undoing failed: %w", err, e)
			}
		}
	}()
	want := p.state(a.index, a.v6)
	have, err := a.current()
	if err != nil {
		return err
	}
	addrs, err := a.setDevice(&j, p)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return a.gainRoutes(&j, have, want) },
		func() error { return a.gainRules(&j, have, want) },
		func() error { return a.loseRules(&j, have, want) },
		func() error { return a.loseRoutes(&j, have, want) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	a.plan, a.addrs = p, addrs
	return nil
}

// setDevice sets MTU, addresses and state, and returns the addresses that are
// this package's.
func (a *Applied) setDevice(j *journal, p Plan) ([]netip.Prefix, error) {
	link, err := a.nl.LinkByIndex(a.index)
	if err != nil {
		return nil, fmt.Errorf("hostnet: device %s: %w", p.Device, err)
	}
	fail := func(what string, err error) ([]netip.Prefix, error) {
		return nil, fmt.Errorf("hostnet: device %s: %s: %w", p.Device, what, err)
	}
	mtu := p.MTU
	if mtu == 0 {
		mtu = a.was.mtu
	}
	if old := link.Attrs().MTU; old != mtu {
		if err := a.nl.LinkSetMTU(link, mtu); err != nil {
			return fail(fmt.Sprintf("set MTU %d", mtu), err)
		}
		if err := j.done(func() error { return a.nl.LinkSetMTU(link, old) }); err != nil {
			return fail("set MTU", err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := a.bringUp(j, link); err != nil {
			return fail("set up", err)
		}
	}
	var mine []netip.Prefix
	for _, addr := range p.Addresses {
		if addr.Addr().Is6() && !a.v6.device() {
			continue
		}
		err := a.nl.AddrAdd(link, address(addr))
		if errors.Is(err, syscall.EEXIST) {
			if slices.Contains(a.addrs, addr) {
				mine = append(mine, addr)
			}
			continue // someone else's: it stays behind
		}
		if err != nil {
			return fail("add address "+addr.String(), err)
		}
		mine = append(mine, addr)
		if err := j.done(func() error { return a.nl.AddrDel(link, address(addr)) }); err != nil {
			return fail("add address", err)
		}
	}
	for _, addr := range a.addrs {
		if slices.Contains(mine, addr) {
			continue
		}
		if err := a.nl.AddrDel(link, address(addr)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fail("remove address "+addr.String(), err)
		}
		if err := j.done(func() error { return a.nl.AddrAdd(link, address(addr)) }); err != nil {
			return fail("remove address", err)
		}
	}
	return mine, nil
}

func (a *Applied) bringUp(j *journal, link netlink.Link) error {
	if a.was.genMode >= 0 && a.was.genMode != genModeNone {
		if err := a.nl.LinkSetIP6AddrGenMode(link, genModeNone); err != nil {
			return err
		}
		if err := j.done(func() error { return a.nl.LinkSetIP6AddrGenMode(link, a.was.genMode) }); err != nil {
			return err
		}
	}
	if err := a.nl.LinkSetUp(link); err != nil {
		return err
	}
	return j.done(func() error { return a.nl.LinkSetDown(link) })
}

// Remove takes the plan back: rules, routes, addresses, and the device's state,
// where the device still exists. What else happened to the host is kept. It may
// be called from any thread, and twice.
func (a *Applied) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return nil
	}
	have, err := a.current()
	errs := []error{err}
	if err == nil {
		var j journal
		errs = append(errs, a.loseRules(&j, have, state{}), a.loseRoutes(&j, have, state{}))
	}
	errs = append(errs, a.restoreDevice())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("hostnet: remove: %w", err)
	}
	a.gone = true
	a.nl.Close()
	return nil
}

func (a *Applied) restoreDevice() error {
	link, err := a.nl.LinkByIndex(a.index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil // closed: its addresses and unicast routes went with it
	}
	if err != nil {
		return err
	}
	var errs []error
	for i := len(a.addrs) - 1; i >= 0; i-- {
		if err := a.nl.AddrDel(link, address(a.addrs[i])); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			errs = append(errs, err)
		}
	}
	if !a.was.up {
		errs = append(errs, a.nl.LinkSetDown(link))
		if a.was.genMode >= 0 && a.was.genMode != genModeNone {
			errs = append(errs, a.nl.LinkSetIP6AddrGenMode(link, a.was.genMode))
		}
	}
	if link.Attrs().MTU != a.was.mtu {
		errs = append(errs, a.nl.LinkSetMTU(link, a.was.mtu))
	}
	return errors.Join(errs...)
}

// address is p as the TUN gets it: usable at once, and without a route of its
// own in the main table.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NOPREFIXROUTE}
	if p.Addr().Is6() {
		a.Flags |= unix.IFA_F_NODAD
	} else {
		a.Broadcast = net.IPv4zero // none
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
