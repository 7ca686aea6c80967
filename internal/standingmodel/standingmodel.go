// Package standingmodel searches for counterexamples to standing leases: every gateway holds one token of every bucket of a limit without
// asking, and Redis keeps these tokens back. A run is an adversary that orders what may happen: requests, reports, registrations, messages
// that are lost or late, clocks that drift, gateways that die, stop or load another limit, and failures of Redis. A judge then checks every
// window of time. All numbers are integers and every run is determined by its seed, so that a counterexample can be repeated and shortened.
//
// The model has the rules of the scripts and of a gateway, and nothing of their code. Omit leaves rules out, one by one: a search that does not
// find what a missing rule breaks would prove nothing.
package standingmodel

// Omit says which rules a run leaves out. The zero value has all rules. The numbers are those of the record in docs/decisions.
type Omit struct {
	// 1: the registry
	CountMembers  bool // a value settles by the number of gateways, not by the number of joins
	StopBeforeEnd bool // a gateway uses standing tokens until its registration ends
	FromSending   bool // a gateway counts its registration from the answer
	Drift         bool // a gateway does not allow for its clock
	DoubleTime    bool // a registration lasts W, not 2W, and a gateway uses it until its end

	// 2: the reserve
	Reserve          bool // nothing is kept back
	ReserveOfMany    bool // nothing is kept back while there are more gateways than M
	ReserveOfLeases  bool // leases may take what is kept back
	ReserveOfThePast bool // a level is refilled until a lease has ended with what is kept back now
	JoinsAfterLeases bool // joins are taken off before what was refilled until a lease has ended
	GiveOnLeaving    bool // a value gains a token when a gateway's registration has ended
	DebtOfJoins      bool // a level is never less than 0: joins cost an empty bucket nothing
	ReserveOfAFull   bool // a bucket without a key starts full

	// 3: joining
	Wait         bool // a gateway uses standing tokens at once
	WaitForAll   bool // a gateway waits until one token is refilled, not one for each gateway
	Confirm      bool // a gateway uses standing tokens after the wait without a renewal that finds its registration
	WaitAgain    bool // a gateway whose registration was lost does not wait
	NewName      bool // a join has the name of the last one: one that was on its way for long may hide that a registration is lost
	RenewOnly    bool // a renewal registers a gateway that is not registered
	CountedJoin  bool // a gateway that did not have the permission gets it without another join
	MemberLimit  bool // a gateway uses standing tokens even though there are more gateways than M
	JoinOnReload bool // a gateway that loads another limit keeps its permission, though its join has found more gateways than the limit's M
	JoinAfterEnd bool // a gateway continues after its last use, if a renewal finds its registration

	// 4: use
	OneTable bool // two routes of a gateway each have a standing token of a bucket

	// 5: the report
	LevelHolds      bool // a report makes the standing lease whole though the level does not hold the token
	StayOwed        bool // a report without an answer counts as paid
	Generation      bool // a late answer counts for a token that was used afterwards
	WholeAfterEnd   bool // an answer after the last use makes the standing lease whole
	RememberNotPaid bool // an entry whose token is used is forgotten

	// 6: the key's time
	TwiceTheTime      bool // a key lives until its level is full, joins not counted twice
	TimeOfDebt        bool // a key lives until its level is full
	TimeOfAnyEmpty    bool // so does one that is written while there is no registry, though it lives longer than 2W
	TimeOfEmptyLeases bool // so does one that is written while there is no registry and has leases
	TimeOfLeases      bool // a key may end before its leases

	// 7: the scripts
	ClampedTake bool // a take from a negative level takes a negative number of tokens
}

// limit is a token bucket: a level gains one unit in a tick, and token units are one token.
type limit struct {
	capacity int
	token    int
	most     int // M: the most gateways that may hold standing tokens, and the deepest debt of a level
	lasts    int // a registration: 2W and a little
}

// pay is W: the time in which M tokens are refilled.
func (l limit) pay() int { return l.most * l.token }

// floorDiv divides and rounds down, also below 0.
func floorDiv(a, b int) int {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
