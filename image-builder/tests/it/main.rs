//! Tests of the image builder, at its public boundary.

mod decide;
mod make;
mod promote;
mod run;
mod schedule;
mod workshop;
