//! HTTP/2 connections: two of them over an in-memory link in virtual time, and single ones against raw frames.

mod calls;
mod pair;
