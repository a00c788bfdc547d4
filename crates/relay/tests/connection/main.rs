//! HTTP/2 connections: two of them over an in-memory link in virtual time, and single ones against raw frames.

mod calls;
mod errors;
mod floods;
mod flow;
mod goodbye;
mod pair;
mod random;
mod raw;
mod split;
