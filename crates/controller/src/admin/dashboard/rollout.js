// A rollout that is under way: how far it is, and what people may decide about it.

import { set } from "/live.js";

const STAGES = {
  progressing: ["pause", ""],
  paused: ["resume", ", paused"],
  awaitingPromotion: ["promote", ", and the canary waits for its promotion"],
};
// What the button says that is pressed to confirm, and what follows from it.
export const DECISIONS = {
  pause: ["Pause", "no further replica is replaced until it is resumed; what has begun is finished."],
  resume: ["Resume", "the rollout goes on where it was paused."],
  promote: ["Promote", "the canary is good, and the other replicas are replaced too."],
};

export function showRollout(box, status, deleting) {
  const { stage, available, since, stable } = status?.rollout ?? {};
  const [offer, state] = STAGES[stage] ?? [];
  box.hidden = deleting || !offer || !stable || stable.revision === status.revision;
  if (box.hidden) return;
  const [bar, text, ...buttons] = box.children;
  bar.max = status.replicas || 1;
  bar.value = available;
  set(text, `to revision ${since}: ${available} of ${status.replicas} replicas ready${state}`);
  for (const button of buttons) button.hidden = ![offer, "undo"].includes(button.value);
}
