package store

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// maxAsked is how many nodes of a cluster are asked at once.
const maxAsked = 5

// cluster follows the master of one slot, to which all keys of a store belong. Nodes are asked when the store needs a
// connection and has lost one; redirections are believed at once. No background is needed: a master that the cluster has
// replaced redirects, or refuses once it has lost the others.
type cluster struct {
	slot  int
	seeds []string
	open  opener

	questions questions

	mu       sync.Mutex // guards what follows
	current  string     // the address of the slot's master; empty: not known
	doubtful bool       // ask before it is used again
	nodes    []string   // all that were named by those asked last
	asked    int        // how often nodes were asked
}

func newCluster(seeds []string, slot int, open opener) *cluster {
	return &cluster{slot: slot, seeds: seeds, open: open}
}

func (t *cluster) locate(deadline time.Time) (string, error) {
	last, doubtful := t.known()
	if !doubtful {
		return last, nil
	}
	address, err := t.questions.ask(func() (string, error) {
		return t.ask(time.Now().Add(time.Until(deadline)/2), last)
	})
	if err != nil {
		return "", err
	}
	t.redirect(address)
	return address, nil
}

func (t *cluster) known() (address string, doubtful bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current, t.doubtful || t.current == ""
}

// ask asks some nodes for the master of the slot.
func (t *cluster) ask(deadline time.Time, last string) (string, error) {
	chosen := t.choose()
	b := newBallot(len(chosen), last, "")
	for _, one := range chosen {
		a := &asker{address: one, open: t.open}
		go func() {
			defer func() { recover() }()
			vote(b, func() (string, error) {
				answer, err := a.ask(deadline, []string{"CLUSTER", "SLOTS"})
				if err != nil {
					return "", err
				}
				master, nodes, err := slotIn(answer, t.slot, a.address)
				if len(nodes) > 0 {
					t.noteNodes(nodes)
				}
				return master, err
			})
		}()
	}
	return b.result()
}

// choose returns the nodes to ask: in turn all that are known, the seeds among them.
func (t *cluster) choose() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	known := map[string]bool{}
	for _, address := range append(append([]string{}, t.seeds...), t.nodes...) {
		if !known[address] {
			known[address] = true
			all = append(all, address)
		}
	}
	if len(all) <= maxAsked {
		return all
	}
	var chosen []string
	for i := 0; i < maxAsked; i++ {
		chosen = append(chosen, all[(t.asked*maxAsked+i)%len(all)])
	}
	t.asked++
	return chosen
}

func (t *cluster) noteNodes(nodes []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nodes = nodes
}

var errNotServed = errors.New("CLUSTERDOWN: no node of the cluster serves this name's slot")

// slotIn returns the slot's master and all nodes, from a node's answer: ranges of slots, each with its first and last slot, its
// master and its replicas. A node is a host, a port, a name and a list of names and values. A host that is missing is the one
// that was asked.
func slotIn(answer interface{}, slot int, asked string) (string, []string, error) {
	master := ""
	var nodes []string // R31
	ranges, ok := answer.([]interface{})
	if !ok {
		return "", nil, errNotRedis
	}
	for _, one := range ranges {
		fields, ok := one.([]interface{})
		if !ok || len(fields) < 3 {
			return "", nil, errNotRedis
		}
		isOurs := numberIn(fields[0]) <= slot && slot <= numberIn(fields[1])
		for i := 2; i < len(fields); i++ {
			address := nodeIn(fields[i], asked)
			if address != "" {
				nodes = append(nodes, address)
			}
			if isOurs && i == 2 {
				master = address
			}
		}
	}
	if master == "" {
		return "", nodes, errNotServed
	}
	return master, nodes, nil
}

func numberIn(value interface{}) int {
	text, _ := value.(string)
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// nodeIn returns the address of a node, or "" if it has none.
func nodeIn(value interface{}, asked string) string {
	fields, ok := value.([]interface{})
	if !ok || len(fields) < 2 {
		return ""
	}
	host, _ := fields[0].(string)
	port := numberIn(fields[1])
	if port <= 0 {
		return ""
	}
	if host == "?" { // it is to be known by its hostname, but has none, or has not told it yet
		ip, found := ipIn(fields)
		if !found {
			return ""
		}
		host = ip
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// ipIn returns the IP in a node's list of names and values.
func ipIn(node []interface{}) (ip string, found bool) {
	if len(node) < 4 {
		return "", false
	}
	list, _ := node[3].([]interface{})
	for i := 0; i+1 < len(list); i += 2 {
		if name, _ := list[i].(string); name == "ip" {
			ip, found = list[i+1].(string)
			return ip, found
		}
	}
	return "", false
}

func (t *cluster) verifiesRole() bool { return false } // a replica redirects

func (t *cluster) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubtful = true
}

func (t *cluster) failed(address string) { t.doubt() }

func (t *cluster) redirect(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if address == "" {
		t.doubtful = true
		return
	}
	t.current = address
	t.doubtful = false
}

func (t *cluster) describe() (kind, server string) {
	server, _ = t.known()
	return "cluster", server
}

func (t *cluster) close() {}
