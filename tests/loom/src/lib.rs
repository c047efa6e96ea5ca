//! Models of `src/store/pins.rs`: in every interleaving, and under every reordering that the memory model allows, a root that a
//! reader has pinned is not freed.
#![cfg(loom)]

#[path = "../../../src/store/pins.rs"]
pub mod pins;

#[cfg(test)]
mod tests {
    use super::pins::{Pins, Published};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use loom::thread;

    const ROOTS: usize = 3;

    /// Root `n` belongs to sub-batch `n + 1` and has the word `n`.
    struct World {
        published: Published,
        pins: Pins,
        freed: [AtomicBool; ROOTS],
        /// Roots before this one are out of the window.
        tail: AtomicU64,
    }

    impl World {
        fn new() -> World {
            World {
                published: Published::new(0, 1),
                pins: Pins::new(2),
                freed: std::array::from_fn(|_| AtomicBool::new(false)),
                tail: AtomicU64::new(0),
            }
        }
        fn assert_alive(&self, root: u64) {
            assert!(!self.freed[root as usize].load(Ordering::Relaxed), "a pinned root was freed");
        }
        /// Reads the newest root, in slot `near` if that is free.
        fn read(&self, near: usize) {
            let (slot, root) = self.pins.pin_newest(near, &self.published).unwrap();
            self.assert_alive(root);
            self.pins.unpin(slot);
        }
        /// Publishes root `n`, lets all older ones go, frees those that no pin needs.
        fn publish(&self, n: u64) {
            self.published.publish(n, n + 1);
            self.tail.store(n, Ordering::SeqCst);
            let oldest = self.pins.oldest(n + 1);
            for old in 0..n {
                if old + 1 < oldest {
                    self.freed[old as usize].store(true, Ordering::Relaxed);
                }
            }
        }
    }

    #[test]
    fn newest_root_stays_while_it_is_pinned() {
        loom::model(|| {
            let world = Arc::new(World::new());
            let reader = {
                let world = world.clone();
                thread::spawn(move || {
                    let (slot, root) = world.pins.pin_newest(0, &world.published).unwrap();
                    world.assert_alive(root);
                    thread::yield_now();
                    world.assert_alive(root);
                    world.pins.unpin(slot);
                })
            };
            world.publish(1);
            world.publish(2);
            reader.join().unwrap();
        });
    }

    #[test]
    fn past_root_found_in_the_window_stays_while_it_is_pinned() {
        loom::model(|| {
            let world = Arc::new(World::new());
            let reader = {
                let world = world.clone();
                thread::spawn(move || {
                    let slot = world.pins.pin_everything(0).unwrap();
                    let root = world.tail.load(Ordering::SeqCst);
                    world.pins.pin_at(slot, root + 1);
                    world.assert_alive(root);
                    thread::yield_now();
                    world.assert_alive(root);
                    world.pins.unpin(slot);
                })
            };
            world.publish(1);
            world.publish(2);
            reader.join().unwrap();
        });
    }

    #[test]
    fn slot_that_changes_hands_hides_neither_reader() {
        loom::model(|| {
            let world = Arc::new(World::new());
            let reader = {
                let world = world.clone();
                thread::spawn(move || {
                    world.read(0);
                    world.read(0);
                })
            };
            world.publish(1);
            world.publish(2);
            reader.join().unwrap();
        });
    }

    #[test]
    fn readers_that_want_one_slot_are_both_seen() {
        loom::model(|| {
            let world = Arc::new(World::new());
            let reader = {
                let world = world.clone();
                thread::spawn(move || world.read(1))
            };
            world.publish(1);
            world.read(1);
            reader.join().unwrap();
        });
    }
}
