export {
  type Happening,
  type HappeningsOptions,
  Hotbed,
  type Lost,
  type NewSession,
  type Options,
  type Warmup,
} from "./hotbed.js";
export { Problem, type ProblemBody, type ProblemKind } from "./problem.js";
export {
  type Command,
  Exec,
  type ExecOptions,
  type Exit,
  type Finished,
  type FollowOptions,
  type Output,
  Session,
  type SessionEvent,
  type SessionView,
  type Snapshot,
  type Sync,
} from "./session.js";
export type { Terminal, TerminalOptions } from "./terminal.js";
export { makesSomething, type Patience } from "./transport.js";
export type { components, operations, paths } from "./generated/schema.js";
