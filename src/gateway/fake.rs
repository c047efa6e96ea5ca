//! A node made of one map, for the gateway's tests: GET, SET, INCR, DEL and a few that stress one thing each.
