//! Tests of the image builder, at its public boundary.

mod decide;
mod difference;
mod live;
mod make;
mod promote;
mod queue;
mod rollout;
mod run;
mod schedule;
mod workshop;
