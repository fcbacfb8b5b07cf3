//! Times, threads, networks and text forms that every folder may use.

pub mod cidr;
pub mod clock;
pub mod escape;
pub mod fields;
pub mod hex;
pub mod http_date;
pub mod percent;
pub mod private_file;
pub mod text_enum;
pub mod thread_group;
pub mod thread_pool;
