//! The list as a reader meets it: its forms, hostile names, and a daemon that is asked, follows on, and is started anew.

mod daemon;
mod forms;
mod offline;
mod places;
mod usage;
