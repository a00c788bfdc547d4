//! The balancing core by its public API alone: what the gRFCs require of it, and models it must agree with.

mod active_checks;
mod bounded_load;
mod composition;
mod config;
mod connection_scaling;
mod connections;
mod driver;
mod fuzz;
mod graceful_switch;
mod health;
mod idle;
mod least_request;
mod maglev;
mod measurements;
mod models;
mod outlier_detection;
mod panic_threshold;
mod peak_ewma;
mod pick_first;
mod priority;
mod random_subsetting;
mod ring_hash;
mod round_robin;
mod weighted_round_robin;
mod weighted_target;
mod zone_aware;
