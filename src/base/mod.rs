//! What everything rests on: time, threads, networks, text for logs.

pub mod cidr;
pub mod clock;
pub mod hex;
pub mod printable;
pub mod private_file;
pub mod text_enum;
pub mod threads;
