//! Spans by an exporter in memory: names, kinds, parents, links and attributes, each compared with the table of the
//! conventions.

mod handlers;
mod publishers;
mod world;
