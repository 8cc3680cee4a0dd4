/** What panels say, in the language that ComfyUI is set to where it is one of these, else in English. */
import { app } from "../../scripts/app.js";

const TEXTS = {
  en: {
    loss: "Loss, step {step} of {steps}",
    pairs: "Base and now:",
    seen: "Base, and now at step {seen}:",
    stop: "Stop and keep",
    stopping: "End training after this step, and go on with the patch so far.",
    waiting: "Run the workflow: the figures come here.",
    running: "Figures of an earlier run. A new run is working.",
    stopped: "Figures of an earlier run. The last run ended before it came here.",
    changed: "Figures of an earlier run. A setting was changed since.",
    copy: "Copy",
    copied: "Copied",
    copying: "Copy sentence and tables, as Markdown.",
    saved: "In the output folder: {file}",
  },
  zh: {
    loss: "损失，第 {step} 步，共 {steps} 步",
    pairs: "基础模型与当前模型：",
    seen: "基础模型，与第 {seen} 步的当前模型：",
    stop: "停止并保留",
    stopping: "在这一步之后结束训练，并使用目前的补丁继续。",
    waiting: "运行工作流后，数值显示在这里。",
    running: "这是较早一次运行的数值。新的运行正在进行。",
    stopped: "这是较早一次运行的数值。最近一次运行在到达这里之前已结束。",
    changed: "这是较早一次运行的数值。此后有设置被更改。",
    copy: "复制",
    copied: "已复制",
    copying: "以 Markdown 格式复制结论和表格。",
    saved: "已保存在输出文件夹：{file}",
  },
};

/** The text of a name, with the values in their places. */
export function textOf(name, values = {}) {
  const texts = TEXTS[app.extensionManager.setting.get("Comfy.Locale")] ?? TEXTS.en;
  return texts[name].replace(/\{(\w+)\}/g, (_, place) => values[place]);
}
