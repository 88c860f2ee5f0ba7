package main

import (
	"context"
	"time"
)

// ikeStop is how long a stop waits for the peers' answers to its Deletes.
const ikeStop = 2 * time.Second

// sayGoodbye says whom a stop waits for, before it does.
func (s *ikeService) sayGoodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), ikeStop)
	defer cancel()
	status, err := s.driver.Status(ctx)
	if err != nil {
		return
	}
	var peers []string
	for i := range status {
		if status[i].Up() {
			peers = append(peers, status[i].Name)
		}
	}
	if len(peers) > 0 {
		s.log.Info("IKE tells its peers that this end stops, and waits for their answers", "peers", peers, "at_most", ikeStop)
	}
}
