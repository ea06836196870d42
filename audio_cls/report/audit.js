// One clip plays at a time; its place moves over the spectrogram, and a click there goes to that moment.
for (const clip of document.querySelectorAll(".clip")) {
  const audio = clip.querySelector("audio");
  const picture = clip.querySelector(".picture");
  if (!audio || !picture) continue;
  const mark = picture.querySelector("i");
  const length = () => (Number.isFinite(audio.duration) ? audio.duration : parseFloat(picture.dataset.seconds));
  const show = () => {
    mark.style.left = `${Math.min(100, (100 * audio.currentTime) / length())}%`;
    if (!audio.paused) requestAnimationFrame(show);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll(".clip audio")) if (other !== audio) other.pause();
    mark.hidden = false;
    show();
  });
  audio.addEventListener("seeked", show);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const go = () => (audio.currentTime = ((event.clientX - box.left) / box.width) * length());
    if (audio.readyState) go();
    else audio.addEventListener("loadedmetadata", go, { once: true });
    audio.play();
  });
}
